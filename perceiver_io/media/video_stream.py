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

from perceiver_io.budget import MOST_INFLATION, most_decoded_bytes
from perceiver_io.extras import require
from perceiver_io.media.source import Source, check_decoded, open_source, unreadable

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = [
    "Decoding",
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
# Of a frame: 16K. Decoders hold several of them, and what comes out takes three bytes a pixel.
_MOST_PIXELS = 2**27
_BYTES_A_PIXEL = 4
# Of sounds: what is slower would become that much more when it is resampled.
_LEAST_RATE = 1000


class Decoding:
    """Decodes streams of a file, frame by frame, until they take more work than a file of its size may ask for.

    A few bytes can stand for a frame that is like the one before, and a file may hold millions of those.

    Args:
        container: The file.
        source: What it is called.
    """

    def __init__(self, container: InputContainer, source: Source) -> None:
        self._container = container
        self._source = source
        self._most = most_decoded_bytes() + MOST_INFLATION * max(container.size, 0)
        self._taken = 0

    def video(self, stream: VideoStream) -> Iterator[VideoFrame]:
        """Decodes the frames of a stream from where the file is.

        Raises:
            UnreadableError: They are more than may be decoded.
        """
        for frame in self._frames(stream):
            self._take(frame.width * frame.height * _BYTES_A_PIXEL)
            yield frame

    def audio(self, stream: AudioStream) -> Iterator[AudioFrame]:
        """Decodes the sound of a stream from where the file is.

        Raises:
            UnreadableError: It is more than may be decoded, or has too low a rate.
        """
        for frame in self._frames(stream):
            if frame.sample_rate < _LEAST_RATE:
                raise unreadable(
                    self._source,
                    f"damaged: its sound has {frame.sample_rate} samples a second, expected {_LEAST_RATE} or more",
                )
            self._take(frame.samples * len(frame.layout.channels) * np.dtype(np.float32).itemsize)
            yield frame

    def _frames(self, stream: Any) -> Iterator[Any]:
        try:
            yield from self._container.decode(stream)
        except IndexError as error:  # of PyAV, in files that may have streams that their headers lack
            raise unreadable(
                self._source, "damaged: it has a stream that appears in the middle of others"
            ) from error

    def _take(self, num_bytes: int) -> None:
        self._taken += num_bytes
        if self._taken > self._most:
            raise unreadable(
                self._source,
                f"too large: what has been decoded of it takes {self._taken:,} bytes, and at most {self._most:,} are "
                "decoded of a file of its size. Set the environment variable PERCEIVER_IO_MOST_DECODED_BYTES to a "
                "larger number if you trust the file",
            )


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
        self._decoding = Decoding(container, source)
        decoded = self._decoding.video(self.stream)
        first = next(decoded, None)
        if first is None:
            raise unreadable(source, "damaged or empty: no frame of it can be decoded")
        self.origin = 0.0 if first.time is None else first.time
        self._decoded: Iterator[VideoFrame] = itertools.chain([first], decoded)

    def seek(self, seconds: float) -> None:
        """Goes on at the last key frame before a time, if the format can do that."""
        if seek(self.container, seconds + self.origin):
            self._decoded = self._decoding.video(self.stream)

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
    stream = pictures[0]
    if stream.codec_context is None:
        raise unreadable(source, "a video of a codec that FFmpeg does not know, or damaged")
    check_decoded(source, stream.width * stream.height * _BYTES_A_PIXEL, "a frame of it")
    # Frames may be larger than the header says.
    most = min(_MOST_PIXELS, most_decoded_bytes() // _BYTES_A_PIXEL)
    stream.codec_context.options = {"max_pixels": str(most)}
    stream.thread_type = "AUTO"
    return stream


def audio_stream(container: InputContainer) -> AudioStream | None:
    """Returns the first stream of sound that can be decoded, None if there is none."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def seek(container: InputContainer, seconds: float) -> bool:
    """Goes to the last key frame before a time, and returns whether it did; some formats can't."""
    av = require("av", extra="video")
    if not 1 < seconds < 2**63 / 1_000_000:  # not worth it, or no time that FFmpeg can say
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
