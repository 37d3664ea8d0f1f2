"""MIDI files: read as other libraries read them, written so that they read the same, refused where they are damaged."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pretty_midi
import pytest

from perceiver_io.media.midi import (
    NOTE,
    midi_fault,
    midi_suffixes,
    new_notes,
    read_midi,
    synthesized,
    write_midi,
)
from perceiver_io.media.source import UnreadableError

# Pitches, velocities, starts and ends in milliseconds, so that files have them exactly.
NOTES = new_notes([60, 64, 67, 60], [90, 1, 127, 30], [0.0, 0.25, 0.25, 1.0], [0.5, 0.75, 2.0, 1.001])


def midi(*tracks: Sequence[Any], ticks: int = 500) -> bytes:
    """A file whose messages have their absolute ticks."""
    file = mido.MidiFile(ticks_per_beat=ticks)
    for messages in tracks:
        track, before = mido.MidiTrack(), 0
        for message in sorted(messages, key=lambda one: one.time):
            track.append(message.copy(time=message.time - before))
            before = message.time
        file.tracks.append(track)
    written = io.BytesIO()
    file.save(file=written)
    return written.getvalue()


def on(pitch: int, tick: int, velocity: int = 80, channel: int = 0) -> Any:
    return mido.Message("note_on", note=pitch, velocity=velocity, time=tick, channel=channel)


def pedal(value: int, tick: int, channel: int = 0) -> Any:
    return mido.Message("control_change", control=64, value=value, time=tick, channel=channel)


def tempo(beats_a_minute: float, tick: int) -> Any:
    return mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(beats_a_minute), time=tick)


def test_what_is_written_is_read_by_others_and_by_us(tmp_path: Path) -> None:
    write_midi(tmp_path / "a.mid", NOTES, program=40)
    (instrument,) = pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")).instruments
    theirs = sorted((one.pitch, one.velocity, one.start, one.end) for one in instrument.notes)
    assert instrument.program == 40
    np.testing.assert_allclose(theirs, sorted(NOTES.tolist()), atol=1e-9)
    for source in (tmp_path / "a.mid", (tmp_path / "a.mid").read_bytes()):
        read = read_midi(source)
        assert read.dtype == NOTE and np.all(np.diff(read["start"]) >= 0)
        np.testing.assert_allclose(sorted(read.tolist()), sorted(NOTES.tolist()), atol=1e-9)
    assert midi_fault(str(tmp_path / "a.mid")) is None
    assert ".mid" in midi_suffixes()


def test_no_notes_make_a_file_without_music(tmp_path: Path) -> None:
    write_midi(tmp_path / "a.mid", NOTES[:0])
    assert not pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")).get_end_time()
    assert midi_fault(tmp_path / "a.mid") == "no music: it has no notes"


def held_by_steps(events: Sequence[tuple[int, str, int]], length: int) -> set[tuple[int, int, int]]:
    """What a piano does, millisecond by millisecond: (pitch, start, end) of what sounds.

    Keys go up before others go down; the pedal moves before both.
    """
    keys: dict[int, int] = {}
    sounding: dict[int, int] = {}
    is_down, heard = False, set()
    for now in range(length + 1):
        at = [event for event in events if event[0] == now]
        for _, kind, value in at:
            if kind == "pedal":
                is_down = value >= 64
        for _, kind, pitch in at:
            if kind == "off":
                keys.pop(pitch, None)
        for pitch in list(sounding):
            if pitch not in keys and not is_down:
                heard.add((pitch, sounding.pop(pitch), now))
        for _, kind, pitch in at:
            if kind == "on":
                if pitch in sounding:
                    heard.add((pitch, sounding[pitch], now))
                keys[pitch] = sounding[pitch] = now
    return heard | {(pitch, start, length) for pitch, start in sounding.items()}


@pytest.mark.parametrize("seed", range(6))
def test_the_pedal_holds_what_a_piano_would_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    events: list[tuple[int, str, int]] = []
    for pitch in (60, 62, 64):
        edges = np.sort(rng.choice(np.arange(1, 190), 8, replace=False))
        for start, end in edges.reshape(-1, 2).tolist():
            events += [(start, "on", pitch), (end, "off", pitch)]
    moves = np.sort(rng.choice(np.arange(1, 190), 7, replace=False)).tolist()
    events += [(tick, "pedal", int(rng.choice([0, 63, 64, 127]))) for tick in moves]
    messages = [
        pedal(value, tick) if kind == "pedal" else on(value, tick, 80 if kind == "on" else 0)
        for tick, kind, value in events
    ]
    found = read_midi(midi([tempo(120, 0)], messages))
    last = max(tick for tick, kind, _ in events if kind == "off" or kind == "pedal")
    expected = held_by_steps(events, last)
    got = {(pitch, round(start * 1000), round(end * 1000)) for pitch, _, start, end in found.tolist()}
    assert got == expected


def test_the_pedal_of_one_channel_holds_no_other() -> None:
    keys = [on(60, 0), on(60, 100, 0), on(72, 0, channel=1), on(72, 100, 0, channel=1)]
    found = read_midi(midi([tempo(120, 0)], [*keys, pedal(127, 50), pedal(0, 400)]))
    assert {pitch: round(end, 3) for pitch, _, _, end in found.tolist()} == {60: 0.4, 72: 0.1}


def test_tempo_changes_count_in_any_track() -> None:
    keys = [on(60, 0), on(60, 500, 0), on(62, 1000), on(62, 1500, 0)]
    changes = [tempo(60, 0), tempo(240, 750)]
    signature = mido.MetaMessage("time_signature", numerator=3, denominator=4, time=750)
    first, later = read_midi(midi(changes, keys)), read_midi(midi([], [*keys, *changes, signature]))
    assert np.array_equal(first, later)
    # A beat of 500 ticks takes a second, from tick 750 on a quarter of one.
    np.testing.assert_allclose(first["start"], [0, 1.5 + 0.125])


def test_drums_are_no_pitches() -> None:
    drum, key = [on(36, 0, channel=9), on(36, 100, 0, channel=9)], [on(60, 0), on(60, 100, 0)]
    assert read_midi(midi([tempo(120, 0)], drum, key))["pitch"].tolist() == [60]
    assert sorted(read_midi(midi([tempo(120, 0)], drum, key), drums=True)["pitch"]) == [36, 60]
    assert midi_fault(midi([tempo(120, 0)], drum)) == "no music: it has no notes but those of drums"


def test_a_file_that_is_cut_anywhere_is_refused() -> None:
    whole = midi([tempo(120, 0)], [on(60, 0), on(60, 100, 0)])
    for length in range(4, len(whole) - 1):
        with pytest.raises(UnreadableError, match=r"damaged|no notes"):
            read_midi(whole[:length])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG and so on", r"is no MIDI file: it begins with b'\\x89PNG' instead of b'MThd'"),
        (b"", "is empty"),
        (b"MThd\0\0\0\x06\0\1\0\3\1\xf4" + b"\xff" * 40, "damaged MIDI file"),
        (midi([tempo(120, 0)], [on(60, 0)]), "no music: it has no notes"),
        (midi([]), "no music: it has no notes"),
        (midi([on(60, 0), on(60, 5, 0)], ticks=-25 * 256 + 40), "counts film frames"),
    ],
)
def test_what_is_no_music_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(UnreadableError, match=message):
        read_midi(content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"nothing\.mid is missing"):
        read_midi(tmp_path / "nothing.mid")


def test_too_many_notes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    events = b"\x00\x90\x3c\x40" + b"\x01\x3c\x00\x00\x3c\x40" * 500_000
    track = b"MTrk" + len(events).to_bytes(4, "big") + events
    path = tmp_path / "million.mid"
    path.write_bytes(b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x01\xf4" + track)
    start = time.perf_counter()
    with pytest.raises(
        UnreadableError, match=r"million\.mid is too long: it has more than 500,000 events.*pieces"
    ):
        read_midi(path)
    assert time.perf_counter() - start < 5


def test_events_are_counted_as_mido_counts_them() -> None:
    messages = [
        on(60, 0),
        mido.MetaMessage("text", text="x" * 300, time=3),
        mido.Message("program_change", program=5, time=4),
        mido.Message("pitchwheel", pitch=5, time=300),
        mido.Message("sysex", data=(1, 2, 3), time=20_000),
        on(60, 20_001, 0),
        on(62, 20_002),
        on(62, 20_003, 0),
    ]
    content = midi([tempo(120, 0)], messages)
    count = sum(map(len, mido.MidiFile(file=io.BytesIO(content)).tracks))
    assert len(read_midi(content, max_events=count)) == 2
    with pytest.raises(UnreadableError, match="more than"):
        read_midi(content, max_events=count - 1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("end", 0.0, "Note 0 sounds from 0.0 to 0.0 s"),
        ("start", -1.0, "from -1.0"),
        ("end", np.inf, "to inf s"),
        ("velocity", 0, "velocities from 1"),
        ("pitch", 128, "Pitches must be from 0 to 127"),
    ],
)
def test_notes_that_are_none_are_not_written(field: str, value: float, message: str, tmp_path: Path) -> None:
    notes = NOTES.copy()
    notes[field][0] = value
    with pytest.raises(ValueError, match=message):
        write_midi(tmp_path / "a.mid", notes)
    assert not list(tmp_path.iterdir())


def test_new_notes_are_sorted_and_checked() -> None:
    notes = new_notes([60, 61], 80, [1.0, 0.5], [2.0, 2.0])
    assert notes["pitch"].tolist() == [61, 60]
    with pytest.raises(ValueError, match="velocity must be from 1 to 127, got 0"):
        new_notes([60], [0], [0.0], [1.0])
    with pytest.raises(ValueError, match="pitch must be from 0 to 127, got -3"):
        new_notes([-3], [1], [0.0], [1.0])


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mid"
    path.write_bytes(b"old")

    def full(self: Any, name: str) -> None:
        Path(name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretty_midi.PrettyMIDI, "write", full)
    with pytest.raises(OSError, match="No space"):
        write_midi(path, NOTES)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="program is 128"):
        write_midi(path, NOTES, program=128)


def test_sound_has_the_pitches_when_they_are_played() -> None:
    rate = 8000
    notes = new_notes([69, 57], 100, [0.0, 1.0], [1.0, 2.0])  # A4 is 440 Hz, A3 is 220 Hz
    samples = synthesized(notes, sample_rate=rate)
    assert np.abs(samples).max() <= 1 and len(samples) >= 2 * rate
    for start, frequency in ((0, 440), (rate, 220)):
        spectrum = np.abs(np.fft.rfft(samples[start : start + rate * 9 // 10] * np.hanning(rate * 9 // 10)))
        found = np.argmax(spectrum) * rate / (rate * 9 // 10)
        assert found == pytest.approx(frequency, abs=1.2)
    with pytest.raises(ValueError, match="no notes to be heard"):
        synthesized(notes[:0])
