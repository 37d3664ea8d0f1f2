"""The logarithm of the power of a sound in bands of frequencies, frame by frame.

Shape legend: F channels of a recording, S samples, T time frames, J mel bands.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from perceiver_io.extras import require

__all__ = ["log_mel"]

# Added to the power before the logarithm: what silence is. About -140 dB of a full-scale sine.
_FLOOR = 1e-10
# How many times longer than the window a transform may be, so that no band falls between two of its frequencies.
_MAX_PADDING = 32


def log_mel(
    samples_FS: Tensor,
    *,
    sampling_rate: int,
    window: int,
    hop: int,
    num_bands: int,
    min_frequency: float,
    max_frequency: float,
) -> Tensor:
    """Returns the natural logarithm of the power in mel bands.

    The first frame begins with the first sample. The last one is the first that reaches the end, and
    silence is beyond that.

    Args:
        samples_FS: (F, S) samples.
        sampling_rate: Samples a second.
        window: Samples of a frame, weighted with a Hann window.
        hop: Samples from frame to frame.
        num_bands: J.
        min_frequency: Where the lowest band begins, in hertz.
        max_frequency: Where the highest band ends.

    Returns:
        (T, F · J), the bands of one channel after those of another.

    Raises:
        ValueError: The bands are too narrow.
    """
    transform, length = _transform(sampling_rate, window, hop, num_bands, min_frequency, max_frequency)
    num_samples = samples_FS.shape[-1]
    num_frames = 1 + -(-max(num_samples - window, 0) // hop)
    # The window stands in the middle of what is transformed.
    left = (length - window) // 2
    padded = functional.pad(samples_FS, (left, (num_frames - 1) * hop + length - left - num_samples))
    power_FJT: Tensor = transform(padded)
    return torch.log(power_FJT + _FLOOR).flatten(0, 1).T.contiguous()


@functools.lru_cache(maxsize=8)
def _transform(
    sampling_rate: int, window: int, hop: int, num_bands: int, min_frequency: float, max_frequency: float
) -> tuple[Any, int]:
    """Returns the transform, and of how many samples: the window and zeros."""
    transforms = require("torchaudio.transforms", extra="audio")
    shortest = 1 << (window - 1).bit_length()
    length = shortest
    while length <= _MAX_PADDING * shortest:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a band is empty is what is looked for
            transform = transforms.MelSpectrogram(
                sampling_rate,
                n_fft=length,
                win_length=window,
                hop_length=hop,
                f_min=min_frequency,
                f_max=max_frequency,
                n_mels=num_bands,
                center=False,
            )
        if (transform.mel_scale.fb.amax(0) > 0).all():
            return transform, length
        length *= 2
    raise ValueError(
        f"{num_bands} mel bands from {min_frequency:g} to {max_frequency:g} Hz are too narrow for frames of {window} "
        f"samples at {sampling_rate} Hz. Set fewer num_mel_bands or a longer window_ms."
    )
