"""What files of video are made of: streams, frames with the times at which they are shown, samples of a rate.

Shape legend: H height, W width.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require
from perceiver_io.media.source import Source, open_source, unreadable

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = [
    "Picture",
    "TimedFrame",
    "TimedFrames",
    "audio_stream",
    "opened",
    "quarters",
    "resampled",
    "seek",
    "upright",
    "video_stream",
]

Picture: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) RGB."""

# Playlists and lists of parts name other files and addresses. The file itself is opened here, so FFmpeg need open none.
_OPEN_OPTIONS = {"protocol_whitelist": "none"}


class TimedFrame(NamedTuple):
    """A frame, and when players show it, in seconds from the first frame on."""

    frame: VideoFrame
    start: float
    end: float


class TimedFrames(Iterator[TimedFrame]):
    """The frames of a video in the order in which they are shown, decoded as they are asked for.

    Args:
        container: The file.
        source: What it is called.
        frame_rate: Frames a second, for files that do not say.

    Attributes:
        stream: Which stream is decoded.
        origin: When the file shows its first frame, on its own clock; headers do not always say that.

    Raises:
        UnreadableError: No frame can be decoded.
    """

    def __init__(self, container: InputContainer, source: Source, *, frame_rate: float = 25) -> None:
        self.container = container
        self.stream = video_stream(container, source)
        self._step = float(1 / self.stream.average_rate) if self.stream.average_rate else 1 / frame_rate
        self._time = -self._step
        decoded = container.decode(self.stream)
        first = next(decoded, None)
        if first is None:
            raise unreadable(source, "damaged or empty: no frame of it can be decoded")
        self.origin = 0.0 if first.time is None else first.time
        self._decoded = itertools.chain([first], decoded)

    def seek(self, seconds: float) -> None:
        """Goes on at the last key frame before a time, if the format can do that."""
        if seek(self.container, seconds + self.origin):
            self._decoded = itertools.chain(self.container.decode(self.stream))

    def __next__(self) -> TimedFrame:
        frame = next(self._decoded)
        self._time = self._time + self._step if frame.time is None else frame.time - self.origin
        if frame.duration and frame.time_base:
            self._step = float(frame.duration * frame.time_base)
        return TimedFrame(frame, self._time, self._time + self._step)


@contextmanager
def opened(source: Source) -> Iterator[InputContainer]:
    """Opens a file, and says which one it is if it cannot be decoded, in the block too."""
    av = require("av", extra="video")
    with open_source(source) as file:
        try:
            with av.open(file, options=dict(_OPEN_OPTIONS), metadata_errors="ignore") as container:
                yield container
        except av.error.FFmpegError as error:
            raise unreadable(
                source,
                f"no video, damaged, or of a format that FFmpeg does not know: it cannot be decoded ({error.strerror})",
            ) from error


def video_stream(container: InputContainer, source: Source) -> VideoStream:
    """Returns the first stream of pictures that move."""
    av = require("av", extra="video")
    pictures = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic  # the cover of a song is no video
    ]
    if container.format.name == "tty":  # FFmpeg draws text files
        raise unreadable(source, "a text file, not a video")
    if not pictures:
        found = ", ".join(stream.type for stream in container.streams) or "nothing that can be decoded"
        raise unreadable(source, f"no video: it has {found}")
    pictures[0].thread_type = "AUTO"
    return pictures[0]


def audio_stream(container: InputContainer) -> AudioStream | None:
    """Returns the first stream of sound, None if there is none."""
    return next(iter(container.streams.audio), None)


def seek(container: InputContainer, seconds: float) -> bool:
    """Goes to the last key frame before a time, and returns whether it did; some formats can't."""
    av = require("av", extra="video")
    if seconds <= 1:  # not worth it
        return False
    try:
        container.seek(int(seconds * 1_000_000))
    except av.error.FFmpegError:
        return False
    return True


def quarters(frame: VideoFrame) -> int:
    """How many right angles a player turns a frame by, anticlockwise."""
    return round(frame.rotation / 90)


def upright(frame: VideoFrame) -> Picture:
    """Returns the pixels of a frame as players show them."""
    stored: Picture = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    return np.rot90(stored, k=quarters(frame))


def resampled(frames: Iterable[AudioFrame], rate: int) -> Iterator[AudioFrame]:
    """Makes mono frames of a sample rate; what comes in may change its own, as recordings of broadcasts do."""
    av = require("av", extra="video")
    resampler: Any = None
    setup = None
    for frame in frames:
        of_frame = (frame.format.name, frame.layout.name, frame.sample_rate)
        if of_frame != setup:
            if resampler is not None:
                yield from resampler.resample(None)
            resampler, setup = av.AudioResampler(format="fltp", layout="mono", rate=rate), of_frame
        yield from resampler.resample(frame)
    if resampler is not None:
        yield from resampler.resample(None)
