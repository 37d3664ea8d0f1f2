"""Sound files.

Shape legend: S samples.
"""

from __future__ import annotations

import os
import wave
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.files import writing

__all__ = ["mono_samples", "write_wav"]


def write_wav(
    path: str | os.PathLike[str], audio: NDArray[np.floating[Any]], *, sample_rate: int = 48000
) -> None:
    """Writes a sound as 16-bit PCM.

    Args:
        path: File to write.
        audio: (S,) mono samples; those outside [-1, 1] are clipped.
        sample_rate: Samples a second.

    Raises:
        ValueError: The samples are not (S,), hold NaN or infinities, or the rate is not positive.
        OSError: The file cannot be written; nothing of it is left, and what was there before still is.
    """
    samples = mono_samples(audio, sample_rate)
    with writing(path) as partial, wave.open(str(partial), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())


def mono_samples(audio: NDArray[np.floating[Any]], sample_rate: int) -> NDArray[np.float32]:
    """Returns samples as files have them: (S,) float32 in [-1, 1], those outside clipped.

    Args:
        audio: (S,) floating-point samples.
        sample_rate: Samples a second.

    Raises:
        ValueError: The samples are not (S,), hold NaN or infinities, or the rate is not positive.
    """
    samples = np.asarray(audio)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating) or not len(samples):
        raise ValueError(
            f"Sound must be floating-point samples (samples,), at least one, got {samples.dtype} {samples.shape}."
        )
    if not np.isfinite(samples).all():
        raise ValueError("The sound holds NaN or infinities.")
    if sample_rate < 1:
        raise ValueError(f"sample_rate is {sample_rate}, expected 1 or more.")
    return np.clip(samples, -1, 1).astype(np.float32)
