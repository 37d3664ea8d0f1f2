"""The frames of a video file, one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require

__all__ = ["video_frames"]

# A playlist must not make the reader fetch something over the network.
_OPTIONS = {"protocol_whitelist": "file"}


def video_frames(path: str | os.PathLike[str], *, stride: int = 1) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yields frames of a video in their own size, decoded as they are asked for.

    Args:
        path: A file that FFmpeg can decode.
        stride: Every how many frames one is wanted, from the first on.

    Yields:
        The frame's number from 0 on, and its pixels (H, W, 3), RGB, upright.

    Raises:
        ValueError: There is no such file, it cannot be decoded or has no pictures, or the stride is not positive.
        ImportError: PyAV is not installed.
    """
    if stride < 1:
        raise ValueError(f"The stride must be at least 1, got {stride}.")
    if not Path(path).is_file():
        raise ValueError(f"There is no video file {path}.")
    av = require("av", extra="video")
    try:
        with av.open(os.fspath(path), options=dict(_OPTIONS)) as container:
            if not container.streams.video or container.format.name == "tty":  # FFmpeg would draw text
                raise ValueError(f"{path} has no moving pictures.")
            for index, frame in enumerate(container.decode(container.streams.video[0])):
                if index % stride == 0:
                    pixels = np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))
                    yield index, np.ascontiguousarray(pixels)
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{path} cannot be decoded ({error.strerror}): it is no video, or it is damaged."
        ) from error
