"""How close a reconstruction is said to be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perceiver_io.tasks.multimodal_autoencoding.metrics import psnr


def test_psnr_is_its_definition() -> None:
    target = np.zeros((2, 3), np.uint8)
    prediction = np.full((2, 3), 255, np.uint8)
    assert psnr(prediction, target, peak=255) == pytest.approx(0)  # and uint8 does not wrap around
    assert psnr(target + 1, target, peak=255) == pytest.approx(20 * math.log10(255))
    assert psnr(np.array([0.1, -0.1]), np.zeros(2)) == pytest.approx(20)
    assert psnr(target, target) == math.inf
    for bad in (np.zeros(3), np.zeros((0, 3))):
        with pytest.raises(ValueError, match="one shape"):
            psnr(bad, bad[:2])
    with pytest.raises(ValueError, match="peak"):
        psnr(target, target, peak=0)
