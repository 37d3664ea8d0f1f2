"""Video files, frame by frame in their own size: every so manyth, or so many that are spread over a video.

Shape legend: T frames, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from perceiver_io.media.source import Source, check_decoded, fault_of, unreadable
from perceiver_io.media.video_stream import (
    Decoding,
    Picture,
    TimedFrame,
    TimedFrames,
    opened,
    upright,
    video_stream,
)

__all__ = ["sample_frames", "video_fault", "video_frames", "video_suffixes"]

_SUFFIXES = {
    *(
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ogv",
        ".wmv",
        ".flv",
        ".3gp",
        ".gif",
    )
}
# Containers round times, to a millisecond at worst.
_TOLERANCE = 1e-3
# Frames that are farther away than so many seconds are sought. Those between key frames are decoded anyway.
_FAR = 10


def video_frames(source: Source, *, stride: int = 1) -> Iterator[tuple[int, Picture]]:
    """Yields frames of a video in their own size, decoded as they are asked for.

    Args:
        source: A file that FFmpeg can decode: a path, bytes, or a mapping of `path` and `bytes`. Nothing but local
            files is opened.
        stride: Every how many frames one is wanted, from the first on.

    Yields:
        The frame's number from 0 on, and its pixels (H, W, 3), RGB, upright.

    Raises:
        ValueError: The file does not exist, is no video, is damaged, or the stride is not positive.
        ImportError: PyAV is not installed.
    """
    if stride < 1:
        raise ValueError(f"The stride must be at least 1, got {stride}.")
    with opened(source) as container:
        frames = Decoding(container, source).video(video_stream(container, source))
        for index, frame in enumerate(frames):
            if index % stride == 0:
                yield index, np.ascontiguousarray(upright(frame))


def sample_frames(
    source: Source, num_frames: int, *, start: float = 0.0, end: float | None = None
) -> NDArray[np.uint8]:
    """Reads frames that are spread evenly over a video, or over a piece of it.

    The piece is cut in as many parts of equal length as frames are wanted, and the frame shown in the middle of each is
    taken. No frame comes twice: a video of fewer frames gives those that it has. Only the frames that are wanted are
    converted, and in long videos what lies between them is not even decoded.

    Args:
        source: A file that FFmpeg can decode: a path, bytes, or a mapping of `path` and `bytes`. Nothing but local
            files is opened.
        num_frames: The most frames that come back.
        start: Where the piece starts, in seconds.
        end: Where it ends; where the video does, if None or beyond.

    Returns:
        (T, H, W, 3) RGB, upright, T at most `num_frames`.

    Raises:
        ValueError: The file does not exist, is no video, is damaged, changes its size, or ends before `start`; or the
            numbers do not fit.
        ImportError: PyAV is not installed.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}, expected 1 or more.")
    if not 0 <= start < (math.inf if end is None else end):
        raise ValueError(
            f"The piece of the video is from {start} to {end} seconds, expected rising times from 0 on."
        )
    until = _duration(source)
    until = until if end is None else min(end, until)
    pictures: list[Picture] = []
    if start < until:
        pictures, last = _shown_at(source, _middles(start, until, num_frames))
        if last is not None and start < last:  # headers say what they like
            pictures, _ = _shown_at(source, _middles(start, last, num_frames))
    if not pictures:
        raise unreadable(source, f"a video that ends before the start at {start:g} s")
    if len(sizes := {picture.shape for picture in pictures}) > 1:
        raise unreadable(source, f"of several sizes: {sorted(size[:2] for size in sizes)}")
    return np.stack(pictures)


def video_suffixes() -> set[str]:
    """Returns the endings of video files that can be read, in lower case."""
    return set(_SUFFIXES)


def video_fault(source: Source | None) -> str | None:
    """Returns what is wrong with a video file, None if all of it decodes.

    Args:
        source: As `sample_frames`; None where there is none.
    """
    return fault_of(_decode, source)


def _decode(source: Source) -> None:
    with opened(source) as container:
        for _ in TimedFrames(container, source):
            pass


def _middles(start: float, end: float, number: int) -> list[float]:
    return [start + (index + 0.5) * (end - start) / number for index in range(number)]


def _duration(source: Source) -> float:
    """Returns how long the file says that its video is, in seconds; what it takes to decode it, if it does not say."""
    with opened(source) as container:
        frames = TimedFrames(container, source)
        if frames.stream.duration and frames.stream.time_base:
            return float(frames.stream.duration * frames.stream.time_base)
        if container.duration:
            return container.duration / 1_000_000
        return max(frame.end for frame in frames)


def _shown_at(source: Source, times: Sequence[float]) -> tuple[list[Picture], float | None]:
    """Returns the frames that are shown at rising times, each once, and where the video ends if that is before one."""
    pictures: list[Picture] = []
    waiting = list(reversed(times))
    taken: float | None = None
    shown: TimedFrame | None = None

    def take(frame: TimedFrame, until: float) -> None:
        nonlocal taken
        while waiting and waiting[-1] < until - _TOLERANCE:
            waiting.pop()
            if taken != frame.start:
                check_decoded(source, (len(pictures) + 1) * frame.frame.width * frame.frame.height * 3)
                pictures.append(np.ascontiguousarray(upright(frame.frame)))
                taken = frame.start

    with opened(source) as container:
        frames = TimedFrames(container, source)
        sought: float | None = None
        for frame in frames:
            take(shown or frame, frame.start)
            if not waiting:
                return pictures, None
            shown = frame
            if waiting[-1] > frame.end + _FAR and sought != waiting[-1]:
                sought = waiting[-1]
                frames.seek(sought)
                shown = None
        if shown is not None:
            take(shown, shown.end)
            return pictures, shown.end if waiting else None
    return pictures, None
