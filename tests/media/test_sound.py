"""Sound files: what is in them, and what is not written."""

from __future__ import annotations

import io
import math
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from perceiver_io.media.sound import mono_samples, read_sound, sound_fault, sound_suffixes, write_wav
from perceiver_io.media.source import UnreadableError


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


def encoded(samples: np.ndarray, *, rate: int = 8000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


STEREO = np.stack([0.5 * np.sin(np.arange(8000) / 6), 0.3 * np.cos(np.arange(8000) / 9)], axis=1)


@pytest.mark.parametrize(("kind", "tolerance"), [("WAV", 1e-4), ("FLAC", 1e-4), ("OGG", 0.05), ("MP3", 0.05)])
def test_a_sound_is_read_as_it_was_written(kind: str, tolerance: float, tmp_path: Path) -> None:
    content = encoded(STEREO, kind=kind)
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(content)
    assert path.suffix in sound_suffixes()
    for source in (
        path,
        str(path),
        content,
        {"path": None, "bytes": content},
        {"path": str(path), "bytes": None},
    ):
        sound = read_sound(source)
        assert (sound.samples.shape, sound.samples.dtype, sound.sample_rate) == ((2, 8000), np.float32, 8000)
        # Compression may change a little, and most at the beginning.
        np.testing.assert_allclose(sound.samples[:, 100:-100], STEREO.T[:, 100:-100], atol=tolerance)
        assert sound_fault(source) is None


def test_every_bad_sound_says_which_it_is_and_why(tmp_path: Path) -> None:
    whole = encoded(STEREO)
    noise = encoded(np.append(STEREO[:, :1], [[math.nan]]), subtype="FLOAT")
    mp3, flac = encoded(STEREO, kind="MP3"), encoded(STEREO, kind="FLAC")
    bad = {
        "missing": ("gone.wav", None),
        "empty": ("empty.wav", b""),
        "no samples": ("none.wav", encoded(np.zeros((0, 1)))),
        "not a sound": ("text.wav", b"hello " * 50),
        "ends after 3": ("half.wav", whole[: len(whole) // 2]),
        "or damaged": ("half.flac", flac[: len(flac) // 2]),
        "before its header": ("half.mp3", mp3[: len(mp3) // 2]),
        "NaN or infinite at sample 8000": ("nan.wav", noise),
    }
    for reason, (name, content) in bad.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is .*{reason}"):
            read_sound(path)
        assert reason in (sound_fault({"path": str(path), "bytes": None}) or "")
    with pytest.raises(ValueError, match=r"is not readable .*directory"):
        read_sound(tmp_path)
    assert sound_fault(None) == "missing"


def test_a_file_that_was_written_as_a_stream_is_whole() -> None:
    """Who writes to a pipe does not know how long the sound will be, and says that it is endless."""
    content = bytearray(encoded(STEREO))
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    assert content[36:40] == b"data"
    assert read_sound(bytes(content)).samples.shape == (2, 8000)


def test_a_stream_of_unknown_length_says_so() -> None:
    """FLAC that was written to a pipe: soundfile cannot go on after the first samples."""
    written = io.BytesIO()
    soundfile.write(written, np.zeros(3000, np.float32), 16000, format="FLAC")
    content = bytearray(written.getvalue())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    content[22:26] = bytes(4)
    with pytest.raises(UnreadableError, match="does not say how long it is"):
        read_sound(bytes(content))


def test_a_budget_that_is_no_number_is_not_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    soundfile.write(written, np.zeros(3000, np.float32), 16000, format="WAV")
    monkeypatch.setenv("PERCEIVER_IO_MOST_DECODED_BYTES", "8e9")
    with pytest.raises(ValueError, match="expected a number of bytes") as error:
        read_sound(written.getvalue())
    assert not isinstance(error.value, UnreadableError)
