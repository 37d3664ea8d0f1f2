"""Events of music: beside stored ones of another implementation, and by what is true of any notes and events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest
import torch

from perceiver_io.adapters.music_events import (
    EDGE,
    STEP,
    VOCAB_SIZE,
    decode_events,
    duration_of,
    encode_notes,
    events_until,
    sounding_events,
    struck_keys,
    transposed,
    transpositions,
)
from perceiver_io.adapters.music_processor import MusicProcessor
from perceiver_io.media.midi import new_notes, write_midi
from perceiver_io.processor import PerceiverIOProcessor

DATA = Path(__file__).resolve().parent.parent / "data"
PIECES = ("ashover1", "reelsa-c32", "xmas9")


def random_notes(seed: int, number: int = 60, pitches: int = 6) -> Any:
    """Notes of few pitches, so that many overlap, in any order of pitches; in whole steps."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, 400, number)
    lengths = rng.integers(1, 150, number)
    pitch, velocity = rng.integers(60, 60 + pitches, number), rng.integers(1, 128, number)
    return new_notes(pitch, velocity, starts * STEP, (starts + lengths) * STEP)


def sounds(notes: Any) -> np.ndarray:
    """Which pitch sounds at which step, painted note by note."""
    painted = np.zeros((128, 700), dtype=bool)
    for pitch, _, start, end in notes.tolist():
        painted[pitch, round(start / STEP) : round(end / STEP)] = True
    return painted


@pytest.mark.parametrize("name", PIECES)
def test_krasserms_events_are_his(name: str) -> None:
    notes = np.load(DATA / "music-notes.npz")[name]
    stored = np.load(DATA / "tiny-ar-krasserm.npz")[f"out_midi_{name}"]
    assert np.array_equal(encode_notes(notes, krasserm=True), stored)
    # Ours say the same: less often how hard a key is struck, and without errors of time that add up.
    ours = encode_notes(notes)
    assert len(ours) < 0.75 * len(stored)
    theirs, own = decode_events(stored), decode_events(ours)
    assert np.array_equal(np.sort(theirs["pitch"]), np.sort(own["pitch"]))
    np.testing.assert_allclose(np.sort(own["start"]), np.sort(notes["start"]), atol=STEP / 2 + 1e-9)
    np.testing.assert_allclose(np.sort(theirs["start"]), np.sort(notes["start"]), atol=0.5)


def test_events_by_hand() -> None:
    notes = new_notes([60, 64, 62], [90, 90, 40], [0.0, 0.0, 2.5], [2.5, 0.5, 2.51])
    expected = [
        *(356 + 22, 60, 64),  # 90 // 4 is 22, once for both
        *(256 + 49, 128 + 64),  # 0.5 s
        *(256 + 99, 256 + 99, 128 + 60),  # 2 s, and the key goes up before the other goes down
        *(356 + 10, 62),
        *(256, 128 + 62),
    ]
    assert encode_notes(notes).tolist() == expected
    decoded = decode_events(expected)
    assert decoded["velocity"].tolist() == [90, 90, 42]
    np.testing.assert_allclose(decoded["end"], [2.5, 0.5, 2.51])
    krasserm = encode_notes(notes, krasserm=True).tolist()
    assert krasserm == [
        *(356 + 22, 60, 356 + 22, 64),
        *(256 + 49, 192),
        *(355, 355, 188),
        *(366, 62),
        *(256, 190),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_what_sounds_is_kept(seed: int) -> None:
    notes = random_notes(seed)
    decoded = decode_events(encode_notes(notes))
    assert np.array_equal(sounds(decoded), sounds(notes))
    pairs = {(pitch, round(start / STEP)) for pitch, _, start, _ in notes.tolist()}
    assert {(pitch, round(start / STEP)) for pitch, _, start, _ in decoded.tolist()} == pairs
    louder: dict[tuple[int, int], int] = {}
    for pitch, velocity, start, _ in notes.tolist():
        louder[pitch, round(start / STEP)] = max(velocity, louder.get((pitch, round(start / STEP)), 0))
    for pitch, velocity, start, _ in decoded.tolist():
        assert abs(velocity - louder[pitch, round(start / STEP)]) <= 2
    assert np.array_equal(encode_notes(decoded), encode_notes(notes))
    assert np.array_equal(encode_notes(notes[::-1]), encode_notes(notes))  # in any order


def test_errors_of_time_do_not_add_up() -> None:
    starts = np.arange(1000) * 0.1049
    notes = new_notes(np.full(1000, 60), 80, starts, starts + 0.05)
    own, theirs = (decode_events(encode_notes(notes, krasserm=quirk)) for quirk in (False, True))
    np.testing.assert_allclose(own["start"], starts, atol=STEP / 2 + 1e-9)
    assert abs(theirs["start"][-1] - starts[-1]) > 1


@pytest.mark.parametrize("seed", range(5))
def test_any_events_are_music(seed: int, tmp_path: Path) -> None:
    ids = np.random.default_rng(seed).integers(0, VOCAB_SIZE, 800)
    notes = decode_events(ids)
    assert len(notes) and np.all(notes["end"] > notes["start"]) and np.all(np.diff(notes["start"]) >= 0)
    assert notes["velocity"].min() >= 1 and notes["velocity"].max() <= 127 and notes["pitch"].max() <= 127
    assert notes["end"].max() <= duration_of(ids) + 1e-9
    for pitch in np.unique(notes["pitch"]):  # one key plays one note at a time
        own = notes[notes["pitch"] == pitch]
        assert np.all(own["start"][1:] >= own["end"][:-1] - 1e-9)
    write_midi(tmp_path / "any.mid", notes)
    assert len(pretty_midi.PrettyMIDI(str(tmp_path / "any.mid")).instruments[0].notes) == len(notes)


def test_events_that_say_nothing_are_left_out() -> None:
    assert not len(decode_events([]))
    assert not len(decode_events([EDGE, 128 + 60, 355, EDGE]))  # a key goes up that is not down
    assert not len(decode_events([60, 188]))  # no time passes
    (left_open,) = decode_events([60, 355]).tolist()
    assert left_open == (60, 64, 0.0, 1.0)
    first, again = decode_events([60, 355, 356 + 31, 60, 305, 188]).tolist()
    assert first == (60, 64, 0.0, 1.0) and again == (60, 126, 1.0, 1.5)
    for wrong in (-1, VOCAB_SIZE):
        with pytest.raises(ValueError, match=f"{wrong} is no event"):
            decode_events([wrong])


def test_transposition_moves_every_pitch_and_nothing_else() -> None:
    notes = random_notes(0)
    ids = encode_notes(notes)
    for semitones in (-5, 0, 3):
        moved = notes.copy()
        moved["pitch"] += np.int64(semitones).astype("u1")
        assert np.array_equal(transposed(ids, semitones), encode_notes(moved))
    assert transpositions(np.array([3, 131, 120, 300]), 12) == range(-3, 8)
    assert transpositions(np.array([300, 370]), 12) == range(1)


def test_where_notes_begin_and_end_among_events() -> None:
    first, last = sounding_events(np.array([370, 60, 64, 300, 188, 60, 300, 192, 70]))
    assert first.tolist() == [1, 2, 5, 8] and last.tolist() == [4, 7, 9, 9]
    first, last = sounding_events(np.array([EDGE]))
    assert not len(first) and not len(last)


def test_struck_keys() -> None:
    notes = random_notes(3)
    expected = {(pitch, round(start / STEP)) for pitch, _, start, _ in notes.tolist()}
    assert struck_keys(encode_notes(notes)) == expected


def test_the_first_seconds() -> None:
    ids = encode_notes(new_notes([60, 62, 64], 80, [0.0, 0.1, 0.3], [0.1, 0.3, 0.5]))
    for seconds, count in ((0.05, 2), (0.1, 5), (0.29, 5), (0.3, 8), (9, len(ids))):
        part = events_until(ids, seconds)
        assert (
            len(part) == count and np.array_equal(part, ids[:count]) and duration_of(part) <= seconds + 1e-9
        )


def test_a_processor_gives_pieces_between_edges(tmp_path: Path) -> None:
    notes, processor = random_notes(1), MusicProcessor()
    write_midi(tmp_path / "a.mid", decode_events(encode_notes(notes)))
    expected = [EDGE, *encode_notes(notes).tolist(), EDGE]
    for value in (notes, tmp_path / "a.mid", str(tmp_path / "a.mid"), (tmp_path / "a.mid").read_bytes()):
        ids = processor.prepare(value)
        assert ids.dtype == torch.int64 and ids.tolist() == expected
    assert processor.prompt(None).tolist() == [EDGE]
    assert processor.prompt(notes, seconds=0.5).tolist() == [
        EDGE,
        *events_until(encode_notes(notes), 0.5).tolist(),
    ]
    batch, mask = processor.collate([processor.prepare(notes), processor.prepare(notes[:5])])
    assert batch.shape == (2, len(expected)) and mask is not None
    assert batch[1][~mask[1]].eq(EDGE).all()


def test_a_processor_without_edges_needs_something_to_continue() -> None:
    processor = MusicProcessor(krasserm=True, edges=False)
    notes = random_notes(2)
    assert processor.prepare(notes).tolist() == encode_notes(notes, krasserm=True).tolist()
    with pytest.raises(ValueError, match="give it a MIDI file"):
        processor.prompt(None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (random_notes(0)[:0], "no notes"),
        (np.zeros((3, 4)), r"Got float64 \(3, 4\), expected notes"),
        (3, "Got int"),
        (b"no midi", "is no MIDI file"),
    ],
)
def test_what_is_no_music_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MusicProcessor().prepare(value)


def test_a_processor_is_saved_and_loaded(tmp_path: Path) -> None:
    processor = PerceiverIOProcessor({"tokens": MusicProcessor(krasserm=True)})
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["inputs"]["tokens"] == {"type": "music", "krasserm": True, "edges": True}
    assert PerceiverIOProcessor.from_pretrained(tmp_path) == processor
