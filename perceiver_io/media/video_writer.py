"""Videos written to files, whole or not at all.

Shape legend: T frames, H height, W width, S samples.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require
from perceiver_io.files import writing
from perceiver_io.media.sound import mono_samples

__all__ = ["VIDEO_SUFFIXES", "write_video"]

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")

_AAC_RATE = 48000  # for sounds at rates that AAC does not have


def write_video(
    path: str | os.PathLike[str],
    frames: NDArray[np.uint8],
    *,
    frame_rate: float = 25,
    audio: NDArray[np.floating[Any]] | None = None,
    sample_rate: int = 48000,
) -> None:
    """Writes a video in H.264, with sound in AAC.

    H.264 as every player knows it has even sizes: an odd height or width gets one more row or column, a copy of the
    last.

    Args:
        path: File to write; it ends in .mp4, .mov or .mkv.
        frames: (T, H, W, 3) uint8 RGB.
        frame_rate: Frames a second.
        audio: (S,) mono samples; those outside [-1, 1] are clipped. No sound if None.
        sample_rate: Samples a second.

    Raises:
        ValueError: The arrays, a rate or the name do not fit.
        OSError: The file cannot be written; nothing of it is left, and what was there before still is.
        ImportError: PyAV is not installed.
    """
    path = Path(path)
    av = require("av", extra="video")
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise ValueError(
            f"A video is written to a file that ends in {', '.join(VIDEO_SUFFIXES)}, got {path.name!r}."
        )
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(
            f"Frames must be uint8 (frames, height, width, 3) and at least one, got {frames.dtype} {frames.shape}."
        )
    if frame_rate <= 0:
        raise ValueError(f"frame_rate is {frame_rate}, expected a number above zero.")
    samples = None if audio is None else mono_samples(audio, sample_rate)
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")

    with writing(path) as partial, av.open(str(partial), "w") as container:
        pictures = container.add_stream("h264", rate=Fraction(frame_rate).limit_denominator(100_000))
        pictures.height, pictures.width = frames.shape[1:3]
        pictures.pix_fmt = "yuv420p"
        pictures.options = {"crf": "18"}
        sound = None
        if samples is not None:
            rates = av.Codec("aac", "w").audio_rates or ()
            sound = container.add_stream("aac", rate=sample_rate if sample_rate in rates else _AAC_RATE)
            sound.layout = "mono"
        for picture in frames:
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(pictures.encode(None))
        if sound is not None and samples is not None:
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate = sample_rate
            frame.time_base = Fraction(1, sample_rate)
            frame.pts = 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
