"""MIDI files of strangers: whatever a file holds, there are notes, or a refusal that costs little."""

from __future__ import annotations

import io
import struct
from collections import Counter

import mido
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.mutations import mutated
from fuzz.trials import Refused, cases, tried
from perceiver_io.adapters.music_events import STEP
from perceiver_io.adapters.music_processor import MusicProcessor
from perceiver_io.media.midi import (
    MAX_SECONDS,
    NOTE,
    midi_fault,
    new_notes,
    read_midi,
    synthesized,
    write_midi,
)


def track(*events: bytes) -> bytes:
    body = b"".join(events)
    return b"MTrk" + struct.pack(">I", len(body)) + body


def delta(ticks: int) -> bytes:
    found = [ticks & 0x7F]
    while ticks := ticks >> 7:
        found.append(ticks & 0x7F | 0x80)
    return bytes(reversed(found))


def file(*tracks: bytes, form: int = 1, resolution: int = 100) -> bytes:
    return b"MThd" + struct.pack(">IHHH", 6, form, len(tracks), resolution) + b"".join(tracks)


def tempo(microseconds: int) -> bytes:
    return b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


def _originals() -> list[bytes]:
    rng = np.random.default_rng(0)
    tracks = []
    for channel in range(3):
        events = [b"\0" + tempo(400_000), b"\0" + bytes([0xC0 | channel, 3])]
        for pitch in rng.integers(20, 100, 8).tolist():
            events += [
                delta(10) + bytes([0x90 | channel, pitch, 64]),
                delta(30) + bytes([0x80 | channel, pitch, 0]),
            ]
            events += [delta(3) + bytes([0xB0 | channel, 64, int(rng.integers(128))])]
        tracks.append(track(*events, b"\0\xff\x2f\0"))
    running = track(
        b"\0\x90\x3c\x40",
        b"\x0a\x3e\x40",
        b"\x0a\x3c\0",
        b"\x0a\x3e\0",
        b"\0\xff\x03\x04name",
        b"\0\xff\x2f\0",
    )
    drums = track(
        b"\0\x99\x24\x40", b"\x0a\x89\x24\0", b"\0\xf0\x03ab\xf7", b"\0\xff\x59\x02\0\0", b"\0\xff\x2f\0"
    )
    return [
        file(*tracks),
        file(running, form=0),
        file(running, drums),
        file(drums, running, tracks[0], resolution=480),
    ]


ORIGINALS = _originals()


@cases(few=60)
@given(content=st.one_of(mutated(ORIGINALS), mutated(ORIGINALS, in_place=True)), drums=st.booleans())
@example(
    content=file(
        track(b"\0" + tempo(2**24 - 1), delta(9_000_000) + b"\x90\x3c\x40", b"\1\x80\x3c\0"), resolution=1
    ),
    drums=False,
)
@example(
    content=file(track(delta(2**28 - 1) + b"\x90\x3c\x40", b"\1\x80\x3c\0"), resolution=32767), drums=False
)
@example(content=file(track(b"\0\x90\x3c\x40", b"\1\x80\x3c\0"), resolution=0), drums=False)
def test_a_file_is_music_or_refused(content: bytes, drums: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """Notes are within their ranges, and as many as keys go down; events say them again."""
    notes = tried(read_midi, content, drums=drums)
    assert capfd.readouterr() == ("", "")
    if isinstance(notes, Refused):
        assert drums or midi_fault(content) == notes.error.reason
        return
    assert notes.dtype == NOTE and notes.ndim == 1 and len(notes)
    assert notes["pitch"].max() <= 127 and 1 <= notes["velocity"].min() and notes["velocity"].max() <= 127
    assert (
        np.isfinite(notes["end"]).all()
        and (notes["start"] >= 0).all()
        and (notes["end"] > notes["start"]).all()
    )
    assert (np.diff(notes["start"]) >= 0).all() and notes["end"].max() <= MAX_SECONDS + 1
    down = Counter(
        message.note
        for one in mido.MidiFile(file=io.BytesIO(content)).tracks
        for message in one
        if message.type == "note_on" and message.velocity
    )
    found = Counter(notes["pitch"].tolist())
    assert all(number <= down[pitch] for pitch, number in found.items())
    for processor in (MusicProcessor(), MusicProcessor(krasserm=True, edges=False)):
        events = tried(processor.prepare, notes)
        if not isinstance(events, Refused):
            assert 0 <= events.min() and events.max() < processor.vocab_size
            again = processor.decode(events.tolist())
            assert set(again["pitch"].tolist()) <= set(notes["pitch"].tolist())
            if not processor.krasserm and len(again):
                assert abs(again["start"].min() - notes["start"].min()) <= STEP


@cases(few=40)
@given(
    values=st.lists(
        st.tuples(
            st.integers(0, 127),
            st.integers(1, 127),
            st.integers(0, 9_000),
            st.sampled_from([1, 7, 100, 4_000]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_notes_are_read_back(
    values: list[tuple[int, int, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """To the millisecond, where no two of one key overlap."""
    ends: dict[int, int] = {}
    kept = []
    for pitch, velocity, start, length in sorted(values, key=lambda one: one[2]):
        if start >= ends.get(pitch, -1) + 1:
            kept.append((pitch, velocity, start / 1000, (start + length) / 1000))
            ends[pitch] = start + length
    pitches, velocities, starts, stops = (np.array(column) for column in zip(*kept, strict=True))
    notes = new_notes(pitches, velocities, starts, stops)
    path = tmp_path_factory.getbasetemp() / "a.mid"
    write_midi(path, notes)
    found = tried(read_midi, path)
    key = ["start", "pitch"]
    found, notes = np.sort(found, order=key), np.sort(notes, order=key)
    assert found["pitch"].tolist() == notes["pitch"].tolist()
    assert found["velocity"].tolist() == notes["velocity"].tolist()
    np.testing.assert_allclose(found["start"], notes["start"], atol=6e-4)
    np.testing.assert_allclose(found["end"], notes["end"], atol=6e-4)


def test_music_of_years_is_not_synthesized(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of it takes 176 kilobytes."""
    notes = new_notes([60], 64, [0.0], [90_000.0])
    found = tried(synthesized, notes)
    assert isinstance(found, Refused)
    assert "last 90,000 seconds, which take 15,876,000,000 bytes" in str(found.error)


def test_a_note_after_years_is_refused() -> None:
    """It became 150 million events."""
    content = file(
        track(b"\0" + tempo(2**24 - 1), delta(9_000_000) + b"\x90\x3c\x40", b"\1\x80\x3c\0"), resolution=1
    )
    assert len(content) < 60
    found = tried(MusicProcessor().prepare, content)
    assert isinstance(found, Refused)
    assert "too long: it ends after 150,994,9" in str(found.error)
