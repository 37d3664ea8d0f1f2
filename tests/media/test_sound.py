"""Sound files: what is in them, and what is not written."""

from __future__ import annotations

import math
import wave
from pathlib import Path

import numpy as np
import pytest

from perceiver_io.media.sound import mono_samples, write_wav


def test_wav_holds_the_samples(tmp_path: Path) -> None:
    sound = np.append(0.5 * np.sin(np.arange(800) / 6), [2.0, -2.0])
    write_wav(tmp_path / "a.wav", sound, sample_rate=8000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    np.testing.assert_allclose(samples, np.clip(sound, -1, 1), atol=1e-4)


def test_samples_are_clipped_not_scaled() -> None:
    samples = mono_samples(np.array([0.25, -3.0, 1.5]), 8000)
    assert samples.dtype == np.float32 and samples.tolist() == [0.25, -1, 1]


def test_bad_sound_is_not_written(tmp_path: Path) -> None:
    for sound in (np.zeros((2, 5)), np.zeros(5, int), np.zeros(0)):
        with pytest.raises(ValueError, match="Sound must be"):
            write_wav(tmp_path / "a.wav", sound)
    with pytest.raises(ValueError, match="NaN"):
        write_wav(tmp_path / "a.wav", np.array([0.0, math.nan]))
    with pytest.raises(ValueError, match="sample_rate is 0"):
        write_wav(tmp_path / "a.wav", np.zeros(5), sample_rate=0)
    with pytest.raises(ValueError, match="not a file that can be written"):
        write_wav(tmp_path, np.zeros(5))
    assert not list(tmp_path.iterdir())
