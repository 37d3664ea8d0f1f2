"""Clips of videos, and whole videos, at the rates and the size that a model takes.

Shape legend: T frames of a clip, H height, W width, S samples of a clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require
from perceiver_io.media.source import Source, check_decoded, unreadable
from perceiver_io.media.video_stream import (
    Decoding,
    Picture,
    TimedFrames,
    audio_stream,
    opened,
    quarters,
    resampled,
    seek,
    upright,
)

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["Clip", "ClipFormat", "Film", "read_clips", "read_film"]

Samples: TypeAlias = NDArray[np.float32]

# Containers round times, to a millisecond at worst.
_TOLERANCE = 1e-3
# A hole in a sound track that is longer than this is kept; anything shorter is rounding.
_GAP = 0.05
# A frame that is shown for longer, in seconds, is the mark of damaged times, and would fill the memory.
_LONGEST_FRAME = 600


@dataclass(frozen=True, kw_only=True)
class ClipFormat:
    """What a clip looks like.

    Attributes:
        num_frames: T.
        size: H and W in pixels.
        frame_rate: Frames a second.
        num_samples: S; as long as the frames.

    Raises:
        ValueError: A number is not positive, or the sound does not have a whole number of samples a second.
    """

    num_frames: int = 16
    size: tuple[int, int] = (224, 224)
    frame_rate: float = 25
    num_samples: int = 30720

    def __post_init__(self) -> None:
        numbers = (self.num_frames, *self.size, self.frame_rate, self.num_samples)
        if not all(0 < number < 2**31 for number in numbers):
            raise ValueError(f"A clip's sizes and rates must be above zero and below 2**31, got {self}.")
        rate = self.num_samples * self.frame_rate / self.num_frames
        if abs(rate - round(rate)) > 1e-6:
            raise ValueError(
                f"{self.num_samples} samples in {self.num_frames} frames at {self.frame_rate:g} frames a second are "
                f"{rate:.4f} samples a second, expected a whole number. Choose another frame rate."
            )

    @property
    def sample_rate(self) -> int:
        """Samples a second."""
        return round(self.num_samples * self.frame_rate / self.num_frames)

    @property
    def seconds(self) -> float:
        """Length of a clip."""
        return self.num_frames / self.frame_rate


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A piece of a video, always of full length: what the file lacks is black and silent, and not counted as real.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        audio: (S,) float32 mono in [-1, 1]; None where the file has no sound.
        start: Where the clip starts in the file, in seconds.
        num_real_frames: How many of the frames, the first, come from the file.
        num_real_samples: The same of the samples.
    """

    frames: NDArray[np.uint8]
    audio: Samples | None
    start: float
    num_real_frames: int
    num_real_samples: int


@dataclass(frozen=True, kw_only=True)
class Film:
    """A video, or the rest of one, as its clips have it.

    Attributes:
        frames: (frames, H, W, 3) uint8 RGB, all of them real.
        audio: (samples,) float32 mono, at least as long as the frames; None where the file has no sound.
        clip_format: What its clips look like.
        start: Where it starts in the file, in seconds.
        num_real_samples: How many of the samples, the first, come from the file.
    """

    frames: NDArray[np.uint8]
    audio: Samples | None
    clip_format: ClipFormat
    start: float = 0.0
    num_real_samples: int = 0

    def __len__(self) -> int:
        return len(self.frames)

    def clip(self, first: int, *, later: float = 0.0) -> Clip:
        """Returns the clip that starts at a frame; what the film lacks is black and silent, and not real.

        Args:
            first: The frame, from 0 on.
            later: Part of a frame's time by which the clip starts later than the frame: its sound does.

        Raises:
            IndexError: The film has no such frame.
        """
        if not 0 <= first < len(self):
            raise IndexError(f"The film has {len(self)} frames, got {first}.")
        of = self.clip_format
        part = self.frames[first : first + of.num_frames]
        missing = of.num_frames - len(part)
        if missing:
            part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), np.uint8)])
        begin = round((first + later) * of.num_samples / of.num_frames)
        num_real_samples = min(max(self.num_real_samples - begin, 0), of.num_samples)
        samples = None
        if self.audio is not None and num_real_samples:
            samples = self.audio[begin : begin + of.num_samples]
            samples = np.pad(samples, (0, of.num_samples - len(samples)))
        return Clip(
            frames=part,
            audio=samples,
            start=self.start + (first + later) / of.frame_rate,
            num_real_frames=of.num_frames - missing,
            num_real_samples=num_real_samples,
        )


def read_clips(
    path: Source,
    clip_format: ClipFormat | None = None,
    *,
    num_clips: int | None = 1,
    start: float = 0.0,
) -> list[Clip]:
    """Reads clips that follow one another without a gap.

    A clip's frame at a time is the file's frame shown at that time, whatever the file's frame rate is and however it
    varies. A frame is turned upright, cut to the largest centred box of the clip's aspect ratio and resized with
    antialiasing. Sound is mixed down to mono and resampled. The published model was made for frames cut and resized so,
    and for samples in [-1, 1].

    Args:
        path: A file that FFmpeg can decode: a path, bytes, or a mapping of `path` and `bytes`. Nothing but local files
            is opened.
        clip_format: Picture, size and rates of the clips; those of the published model if None.
        num_clips: How many clips are wanted; all that the file has if None. Fewer come back if the file is shorter,
            but at least one; the last may be partly real.
        start: Where the first clip starts, in seconds.

    Raises:
        ValueError: The file does not exist, is no video, is damaged, or ends before `start`.
        OSError: The file may not be read.
        ImportError: PyAV or Pillow is not installed.
    """
    clip_format = clip_format or ClipFormat()
    if num_clips is not None and num_clips < 1:
        raise ValueError(f"num_clips is {num_clips}, expected 1 or more.")
    if not math.isfinite(start) or start < 0:
        raise ValueError(f"start is {start} seconds, expected 0 or more.")
    num_frames = math.inf if num_clips is None else num_clips * clip_format.num_frames
    film = _read(path, clip_format, start=start, num_frames=num_frames)
    return [film.clip(first) for first in range(0, len(film), clip_format.num_frames)]


def read_film(path: Source, clip_format: ClipFormat | None = None) -> Film:
    """Reads a whole video, to take clips of it that may overlap.

    Args:
        path: As `read_clips`.
        clip_format: As `read_clips`.

    Raises:
        ValueError: As `read_clips`.
        OSError: As `read_clips`.
        ImportError: As `read_clips`.
    """
    return _read(path, clip_format or ClipFormat(), start=0.0, num_frames=math.inf)


def _read(path: Source, clip_format: ClipFormat, *, start: float, num_frames: float) -> Film:
    frames, origin = _read_frames(path, clip_format, start=start, num_frames=num_frames)
    num_clips = -(-len(frames) // clip_format.num_frames)
    check_decoded(path, num_clips * clip_format.num_samples * np.dtype(np.float32).itemsize, "its sound")
    sound, num_real = _read_sound(
        path, clip_format, start=start + origin, num_samples=num_clips * clip_format.num_samples
    )
    return Film(
        frames=np.stack(frames),
        audio=sound if num_real else None,
        clip_format=clip_format,
        start=start,
        num_real_samples=num_real,
    )


def _read_frames(
    path: Source, clip_format: ClipFormat, *, start: float, num_frames: float
) -> tuple[list[Picture], float]:
    """Returns the frames from `start` on, and when the file's first frame is shown."""
    rate = clip_format.frame_rate
    frames: list[Picture] = []
    shown: Callable[[], Picture] | None = None
    shown_at = 0.0

    def show_until(end: float) -> None:
        if shown is not None and end - max(shown_at, start) > _LONGEST_FRAME:
            raise unreadable(
                path,
                f"damaged, and cannot be decoded: it says that a frame at {shown_at:.2f} s is shown until {end:.2f} s",
            )
        while (
            shown is not None and len(frames) < num_frames and start + len(frames) / rate < end - _TOLERANCE
        ):
            check_decoded(path, (len(frames) + 1) * math.prod(clip_format.size) * 3)
            frames.append(shown())

    with opened(path) as container:
        decoded = TimedFrames(container, path, frame_rate=rate)
        if start > 0:
            decoded.seek(start)
        end = 0.0
        for frame in decoded:
            show_until(frame.start)
            if len(frames) >= num_frames:
                break
            shown, shown_at = _LatePicture(frame.frame, decoded.stream, clip_format.size), frame.start
            end = frame.end
        show_until(end)
    if not frames:
        raise unreadable(path, f"a video that ends before the start at {start:g} s")
    return frames, decoded.origin


class _LatePicture:
    """A frame as a clip holds it, made once it is asked for: frames that no clip shows are never converted."""

    def __init__(self, frame: VideoFrame, stream: VideoStream, size: tuple[int, int]) -> None:
        self.frame = frame
        self.aspect = float(stream.sample_aspect_ratio or 1)  # of a pixel
        self.size = size
        self.picture: Picture | None = None

    def __call__(self) -> Picture:
        if self.picture is None:
            aspect = 1 / self.aspect if quarters(self.frame) % 2 else self.aspect
            self.picture = _resized(upright(self.frame), self.size, aspect)
        return self.picture


def _resized(picture_hwc: Picture, size: tuple[int, int], pixel_aspect: float) -> Picture:
    """Cuts the largest centred box of the right shape and resizes it; pixels may be wider than high."""
    pil = require("PIL.Image", extra="video")
    source_height, source_width = picture_hwc.shape[:2]
    height, width = size
    box_height = min(source_height, source_width * pixel_aspect * height / width)
    box_width = box_height * width / height / pixel_aspect
    left, top = (source_width - box_width) / 2, (source_height - box_height) / 2
    box = (
        max(left, 0.0),
        max(top, 0.0),
        min(left + box_width, source_width),
        min(top + box_height, source_height),
    )
    image = pil.fromarray(np.ascontiguousarray(picture_hwc))
    return np.asarray(image.resize((width, height), resample=pil.Resampling.BILINEAR, box=box))


def _read_sound(
    path: Source, clip_format: ClipFormat, *, start: float, num_samples: int
) -> tuple[Samples, int]:
    """Returns the samples from a time of the file on, silent where there are none, and where the last real one ends."""
    rate = clip_format.sample_rate
    sound = np.zeros(num_samples, np.float32)
    end = 0
    with opened(path) as container:
        stream = audio_stream(container)
        if stream is None:
            return sound, 0
        seek(container, start)
        position: int | None = None
        for chunk in resampled(Decoding(container, path).audio(stream), rate):
            samples = chunk.to_ndarray()[0]
            said = position if chunk.time is None else round((chunk.time - start) * rate)
            if position is None or (said is not None and abs(said - position) > _GAP * rate):
                position = said or 0
            first, last = max(position, 0), min(position + len(samples), num_samples)
            if first < last:
                sound[first:last] = samples[first - position : last - position]
                end = last
            position += len(samples)
            if position >= num_samples:
                break
    # Resampling can overshoot; damaged files can hold anything.
    return np.clip(np.nan_to_num(sound), -1, 1), end
