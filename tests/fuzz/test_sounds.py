"""Sounds of strangers: whatever a file holds, there are its samples, or a refusal that costs little."""

from __future__ import annotations

import io
import re
import struct
import wave

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.mutations import ODD_NUMBERS, mutated
from fuzz.trials import Refused, cases, tried
from perceiver_io.adapters.audio_processor import PerceiverIOFeatureExtractor
from perceiver_io.media.sound import Sound, read_sound, sound_fault

BUDGET = 32 * 2**20


@pytest.fixture(autouse=True)
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_IO_MOST_DECODED_BYTES", str(BUDGET))


def encoded(samples: np.ndarray, kind: str, subtype: str | None = None, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def _originals() -> list[bytes]:
    tones = [0.4 * np.sin(np.arange(400) / 7), np.random.default_rng(0).uniform(-0.5, 0.5, (300, 2))]
    found = []
    for kind in sorted(soundfile.available_formats()):
        for subtype in soundfile.available_subtypes(kind):
            for tone in tones:
                if kind not in ("SDS", "SD2") and soundfile.check_format(kind, subtype):
                    try:
                        content = encoded(tone, kind, subtype)
                        soundfile.info(io.BytesIO(content))
                    except (
                        RuntimeError,
                        TypeError,
                        ValueError,
                    ):  # of one channel only, or not to be read from memory
                        continue
                    found.append(content)
    return found


ORIGINALS = _originals()
MPG123 = ("Note: ", "Warning: ", "[src/libmpg123/")


@cases(few=150)
@given(content=mutated(ORIGINALS))
@example(content=b"\xf0~\x00\x01\x00\x00\x08HP\x07\x10\x03\x00")  # libsndfile wrote to the standard output
@example(content=b"ID3\4\0\0\0\0\0\2ab\xf0~\x00\x01\x00\x00\x08HP\x07\x10\x03\x00")
def test_a_file_is_a_sound_or_refused(content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """The samples are those that libsndfile gives in one piece; only mpg123 may complain, on the error output."""
    capfd.readouterr()
    found = tried(read_sound, content)
    out, errors = capfd.readouterr()
    assert not out
    assert all(line.startswith(MPG123) for line in errors.splitlines() if line), errors
    if isinstance(found, Refused):
        assert found.error.reason == sound_fault(content)
        return
    assert found.samples.dtype == np.float32 and found.samples.ndim == 2 and found.samples.size
    assert np.isfinite(found.samples).all() and found.samples.nbytes <= BUDGET
    with soundfile.SoundFile(io.BytesIO(content)) as sound:
        np.testing.assert_array_equal(
            found.samples, sound.read(BUDGET // 4, dtype="float32", always_2d=True).T
        )
        assert found.sample_rate == sound.samplerate


PROCESSORS = {
    "raw": PerceiverIOFeatureExtractor(sampling_rate=4000, max_seconds=0.5, normalize="rms"),
    "stereo": PerceiverIOFeatureExtractor(sampling_rate=8000, num_channels=2),
    "log-mel": PerceiverIOFeatureExtractor(
        sampling_rate=4000, features="log-mel", num_mel_bands=8, normalize="standard"
    ),
}
WAVES = [one for one in ORIGINALS if one[:4] in (b"RIFF", b"fLaC", b"FORM", b".snd", b"OggS")]


@cases(few=60)
@given(content=mutated(WAVES), name=st.sampled_from(sorted(PROCESSORS)))
def test_processors_make_finite_tensors(content: bytes, name: str) -> None:
    """Whatever rate a file says that it has, and as the samples alone would be."""
    processor = PROCESSORS[name]
    found = tried(processor.prepare, content)
    sound = tried(read_sound, content)
    if isinstance(sound, Refused):
        assert isinstance(found, Refused)
        return
    if isinstance(found, Refused):
        assert re.search("channels|divisor|too long|Turn it around", str(found.error))
        return
    assert found.dtype == torch.float32 and found.isfinite().all() and found.numel()
    assert torch.equal(found, processor.prepare((sound.samples, sound.sample_rate)))
    values, mask = processor.collate([found, None])
    assert mask is not None and int(mask[0].sum()) == found.shape[processor._time_axis] and not mask[1].any()
    assert values.isfinite().all()


@cases(few=60)
@given(
    channels=st.integers(1, 9),
    rate=st.sampled_from([1, 2, 7, 4000, 4001, 8000, 44_100, 44_099, 192_000, 2**31 - 1]),
    frames=st.integers(0, 300),
    declared=st.one_of(st.none(), st.sampled_from(ODD_NUMBERS)),
    extra=st.binary(max_size=20),
    seed=st.integers(0, 9),
)
@example(channels=1, rate=1, frames=300, declared=None, extra=b"", seed=0)  # 300 samples became 1,200,000
def test_a_wave_is_its_numbers(
    channels: int, rate: int, frames: int, declared: int | None, extra: bytes, seed: int
) -> None:
    """Headers may say more, as those of streams do, or less, and other chunks may follow."""
    values = np.random.default_rng(seed).integers(-(2**15), 2**15, (frames, channels), dtype=np.int16)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((channels, 2, min(rate, (2**31 - 1) // (2 * channels)), 0, "NONE", ""))
        writer.writeframes(values.astype("<i2").tobytes())
    content = file.getvalue() + (b"junk" + struct.pack("<I", len(extra)) + extra if extra else b"")
    if declared is not None:
        content = content[:40] + struct.pack("<I", declared & 2**32 - 1) + content[44:]
    found = tried(read_sound, content)
    if declared is None:
        assert isinstance(found, Refused) == (not frames)
    if isinstance(found, Sound):
        length = min(frames, found.samples.shape[1])
        assert found.samples.shape[0] == channels
        assert length == frames or (declared is not None and declared < values.nbytes)
        np.testing.assert_array_equal(found.samples.T[:length] * 2**15, values[:length])
        processor = PROCESSORS["raw"]
        resampled = tried(processor.prepare, content)
        if isinstance(resampled, torch.Tensor):
            assert len(resampled) <= 0.5 * 4000


@pytest.mark.parametrize("kind", ["FLAC", "OGG"])
def test_silence_does_not_fill_the_memory(kind: str) -> None:
    """At most two megabytes that stands for 40 megabytes of samples, of which a budget of 32 is exceeded."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 8000, 1, format=kind) as sound:
        for _ in range(BUDGET // 4 // 65_536 + 8):
            sound.write(np.zeros(65_536, np.float32))
    content = file.getvalue()
    assert len(content) < 2_000_000
    found = tried(read_sound, content)
    assert isinstance(found, Refused)
    assert re.search(
        "too large: decoded, it would take [0-9,]+ bytes, and at most 33,554,432 are read", str(found.error)
    )


@pytest.mark.parametrize("kind", ["FLAC", "AU", "CAF", "W64"])
def test_what_a_header_declares_takes_no_memory(kind: str) -> None:
    content = bytearray(encoded(np.zeros(400, np.float32), kind, "PCM_16"))
    if kind == "FLAC":
        content[21:26] = b"\xff" * 5  # 2^36 samples
    else:
        place = content.index(
            struct.pack(
                {"AU": ">I", "CAF": ">Q", "W64": "<Q"}[kind], 800 + 4 * (kind == "CAF") + 24 * (kind == "W64")
            )
        )
        content[place : place + 4] = b"\x7f\xff\xff\xff"
    assert isinstance(tried(read_sound, bytes(content)), (Refused, Sound))
