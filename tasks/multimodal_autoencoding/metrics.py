"""How close a reconstruction comes to what was put in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["psnr"]


def psnr(prediction: npt.NDArray[Any], target: npt.NDArray[Any], *, peak: float = 1.0) -> float:
    """Computes the peak signal-to-noise ratio: 10 log10(peak² / mean squared error).

    Args:
        prediction: Values of any shape.
        target: Values of the same shape.
        peak: The largest value: 1 for sound in [-1, 1] and pictures in [0, 1], 255 for uint8 pictures.

    Returns:
        Decibels; infinity if both are equal.

    Raises:
        ValueError: The shapes differ, there are no values, or the peak is not positive.
    """
    if prediction.shape != target.shape or not prediction.size:
        raise ValueError(
            f"PSNR compares arrays of one shape with at least one value, got {prediction.shape} and {target.shape}."
        )
    if peak <= 0:
        raise ValueError(f"peak is {peak}, expected a number above zero.")
    squared = np.square(prediction.astype(np.float64) - target.astype(np.float64))
    error = float(squared.mean())
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)
