"""Sound files.

Shape legend: F channels, S samples.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import wave
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require
from perceiver_io.files import writing
from perceiver_io.media.source import (
    Source,
    UnreadableError,
    check_decoded,
    fault_of,
    open_source,
    unreadable,
)

__all__ = ["Sound", "mono_samples", "read_sound", "sound_fault", "sound_suffixes", "write_wav"]

_SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"}
# Headers of files that were written as a stream say that there is more than can ever be.
_STREAMED = 0x7FFF0000
# The length that the header of an MP3 says is an estimate in some.
_ENOUGH = 0.9
_PIECE = 2**18  # samples
_UNKNOWN = 2**63 - 1


@dataclass(frozen=True)
class Sound:
    """A recording.

    Attributes:
        samples: (F, S) float32, from -1 to 1 in files of whole numbers.
        sample_rate: Samples a second.
    """

    samples: NDArray[np.float32]
    sample_rate: int


def read_sound(source: Source) -> Sound:
    """Reads a sound, all of it, in its own rate and with all of its channels.

    Args:
        source: The file: a path, bytes, or a mapping of `path` and `bytes`. WAV, FLAC, Ogg, MP3 and what else
            libsndfile knows.

    Raises:
        UnreadableError: There is no such file, it is no sound, it has no samples, it is damaged or cut short, or it
            holds NaN or infinities.
        ImportError: soundfile is not installed.
    """
    soundfile = require("soundfile", extra="audio")
    with open_source(source) as file:
        if _is_sample_dump(file):
            raise unreadable(source, "a MIDI sample dump (SDS), which is not read; convert it to WAV")
        try:
            with soundfile.SoundFile(_Steady(file)) as sound:
                length, log, sample_rate = sound.frames, sound.extra_info, sound.samplerate
                if length == _UNKNOWN:
                    raise unreadable(
                        source, "a stream whose header does not say how long it is; write it anew"
                    )
                # A minute of silence takes a few bytes, and a header says what it likes.
                check_decoded(source, length * sound.channels * np.dtype(np.float32).itemsize)
                samples = _samples(sound, source)
        except UnreadableError:
            raise
        except (RuntimeError, TypeError, ValueError, OSError, MemoryError) as error:
            reason = str(error).rpartition(": ")[2].rstrip(".")
            raise unreadable(source, f"not a sound, or damaged ({reason})") from error
    if not samples.size:
        raise unreadable(source, "empty: it has no samples, or is damaged")
    if samples.shape[1] < _ENOUGH * length or _is_cut_short(log):
        raise unreadable(
            source, f"damaged: it ends after {samples.shape[1]} samples, before its header says that it does"
        )
    if not np.isfinite(samples).all():
        place = int(np.argwhere(~np.isfinite(samples).all(0))[0, 0])
        raise unreadable(source, f"NaN or infinite at sample {place}")
    return Sound(samples, sample_rate)


def sound_suffixes() -> set[str]:
    """Returns the endings of sound files that can be read, in lower case."""
    return set(_SUFFIXES)


def sound_fault(source: Source | None) -> str | None:
    """Returns what is wrong with a sound file, None if it can be read.

    Args:
        source: As `read_sound`; None where there is none.
    """
    return fault_of(read_sound, source)


class _Steady:
    """A file as libsndfile may have it: an exception within its callbacks would be printed, and not raised."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.tell, self._file = file.read, file.tell, file

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes to a place, or stays where it is if there is no such place: libsndfile sees that."""
        with contextlib.suppress(ValueError, OSError):
            self._file.seek(offset, whence)
        return self._file.tell()


def _is_sample_dump(file: BinaryIO) -> bool:
    """Whether libsndfile would take a file for an SDS; reading these, it writes to the standard output."""
    place = 0
    while len(head := file.read(10)) == 10 and head.startswith(b"ID3"):  # it looks behind tags
        place += 10 + sum(byte << 7 * shift for shift, byte in enumerate(reversed(head[6:])))
        file.seek(place)
    file.seek(0)
    return head.startswith(b"\xf0\x7e")


def _samples(sound: Any, source: Source) -> NDArray[np.float32]:
    """All samples of an open file, (F, S), read in pieces: memory is taken for what is there."""
    pieces: list[NDArray[np.float32]] = []
    taken, most = 0, max(_PIECE // sound.channels, 1)
    while not pieces or pieces[-1].shape[1] == most:  # a piece that is shorter is the last
        piece = sound.read(most, dtype="float32", always_2d=True)
        pieces.append(piece.T)
        taken += piece.nbytes
        check_decoded(source, taken)  # not all headers hold libsndfile back
    samples = np.empty((sound.channels, sum(piece.shape[1] for piece in pieces)), np.float32)
    return np.concatenate(pieces, axis=1, out=samples)


def _is_cut_short(log: str) -> bool:
    """Whether libsndfile found less than the header of a WAV or AIFF file declares; it only logs that."""
    found = re.search(r"^ *(?:data|SSND) : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    return found is not None and int(found[2]) < int(found[1]) < _STREAMED


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
