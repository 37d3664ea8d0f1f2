"""Music as events: the vocabulary of Performance RNN and Music Transformer, from notes and back.

    0 … 127     a key goes down
    128 … 255   a key goes up
    256 … 355   10 ms to 1 s pass
    356 … 387   how hard the keys that follow are struck, in 32 steps
    388         the edge of a piece; also what pads a batch, where a mask hides it

Shape legend: N notes, T events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.media.midi import NOTE, Notes

__all__ = [
    "EDGE",
    "STEP",
    "VOCAB_SIZE",
    "decode_events",
    "duration_of",
    "encode_notes",
    "events_until",
    "sounding_events",
    "struck_keys",
    "transposed",
    "transpositions",
]

STEP = 0.01
"""Seconds of the shortest time shift, to which times are rounded."""
EDGE = 388
VOCAB_SIZE = 389

_OFF, _SHIFT, _VELOCITY = 128, 256, 356
_MOST_STEPS = 100
_VELOCITIES_A_BIN = 4
_USUAL_VELOCITY = 64


def encode_notes(notes: Notes, *, krasserm: bool = False) -> NDArray[np.int64]:
    """Returns the events of notes, without edges.

    Times are rounded to 10 ms from the beginning, so that no error adds up, and a note lasts for 10 ms at least. At one
    time keys go up first, then others go down, both from low to high. A velocity is written where it changes. A key
    that is struck again goes up first, and then sounds as long as either note; two notes that are one key, struck at
    one time, become one of the greater velocity.

    Args:
        notes: (N,) in any order.
        krasserm: Whether the events are those of krasserm's encoder, which his models were trained on: a velocity
            before nearly every note; each time between two events rounded by itself, so that errors add up; notes that
            start together as the file has them. Unlike in his, notes after the last release of a pedal are not lost.

    Returns:
        (T,) ids.
    """
    if krasserm:
        return _krasserm_events(notes)
    moments: list[tuple[int, int, int, int]] = []  # step, 1 for a key that goes down, pitch, velocity
    for pitch in np.unique(notes["pitch"]).tolist():
        of_pitch = notes[notes["pitch"] == pitch]
        spans: dict[int, tuple[int, int]] = {}  # end and velocity by start
        for start, end, velocity in zip(
            np.rint(of_pitch["start"] / STEP).astype(int).tolist(),
            np.rint(of_pitch["end"] / STEP).astype(int).tolist(),
            of_pitch["velocity"].tolist(),
            strict=True,
        ):
            last, loudest = spans.get(start, (0, 0))
            spans[start] = max(end, start + 1, last), max(velocity, loudest)
        starts, last = sorted(spans), 0
        for start, following in zip(starts, [*starts[1:], None], strict=True):
            last = max(last, spans[start][0])
            moments.append((start, 1, pitch, spans[start][1]))
            moments.append((last if following is None else min(last, following), 0, pitch, 0))
    events: list[int] = []
    now, bin_before = 0, None
    for step, is_down, pitch, velocity in sorted(moments):
        events += _shifts(step - now)
        now = step
        if not is_down:
            events.append(_OFF + pitch)
            continue
        if velocity // _VELOCITIES_A_BIN != bin_before:
            bin_before = velocity // _VELOCITIES_A_BIN
            events.append(_VELOCITY + bin_before)
        events.append(pitch)
    return np.array(events, dtype=np.int64)


def decode_events(ids: Iterable[int]) -> Notes:
    """Returns the notes of any events.

    Velocities are the middle of their bin, 64 before the first. A key that goes up without being down, and a note that
    takes no time, are left out. One that is struck again ends; those that are still down sound until the last event.
    Edges of pieces mean nothing.

    Args:
        ids: (T,) in the vocabulary.

    Raises:
        ValueError: An id is not in the vocabulary.
    """
    step, velocity = 0, _USUAL_VELOCITY
    down: dict[int, tuple[int, int]] = {}  # start and velocity by pitch
    found: list[tuple[int, int, float, float]] = []

    def end(pitch: int) -> None:
        if pitch in down:
            start, of_note = down.pop(pitch)
            if step > start:
                found.append((pitch, of_note, start * STEP, step * STEP))

    for event in map(int, ids):
        if 0 <= event < _OFF:
            end(event)
            down[event] = step, velocity
        elif _OFF <= event < _SHIFT:
            end(event - _OFF)
        elif _SHIFT <= event < _VELOCITY:
            step += event - _SHIFT + 1
        elif _VELOCITY <= event < EDGE:
            velocity = (event - _VELOCITY) * _VELOCITIES_A_BIN + _VELOCITIES_A_BIN // 2
        elif event != EDGE:
            raise ValueError(f"{event} is no event of music, expected 0 to {EDGE}.")
    for pitch in sorted(down):
        end(pitch)
    notes = np.array(found, dtype=NOTE)
    return notes[np.lexsort((notes["pitch"], notes["start"]))]


def duration_of(ids: NDArray[np.int64]) -> float:
    """Returns how many seconds pass in events."""
    return float(_steps(ids).sum() * STEP)


def events_until(ids: NDArray[np.int64], seconds: float) -> NDArray[np.int64]:
    """Returns the events of the first seconds; what would pass them is left out.

    Args:
        ids: (T,) events.
        seconds: How many.
    """
    # A hair more, for sums of hundredths that are no hundredth.
    return ids[np.cumsum(_steps(ids)) <= seconds / STEP + 1e-6]


def sounding_events(ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns where each note begins and ends among events, at their end if nothing ends it before.

    Args:
        ids: (T,) events.

    Returns:
        The indices of the events in which a key goes down, and of those in which it goes up or down again; (N,) each.
    """
    firsts = np.flatnonzero((ids >= 0) & (ids < _OFF))
    ends: dict[int, int] = {}
    lasts = []
    for place in range(len(ids) - 1, -1, -1):
        pitch = int(ids[place]) % _OFF
        if 0 <= ids[place] < _OFF:
            lasts.append(ends.get(pitch, len(ids)))
        if 0 <= ids[place] < _SHIFT:
            ends[pitch] = place
    return firsts, np.array(lasts[::-1], dtype=np.int64)


def struck_keys(ids: NDArray[np.int64]) -> set[tuple[int, int]]:
    """Returns the pitch of each key that goes down in events, and the step at which it does.

    Args:
        ids: (T,) events.
    """
    is_down = (ids >= 0) & (ids < _OFF)
    return set(zip(ids[is_down].tolist(), np.cumsum(_steps(ids))[is_down].tolist(), strict=True))


def transpositions(ids: NDArray[np.integer[Any]], most: int) -> range:
    """Returns by how many semitones events can be moved so that all pitches are still 0 to 127.

    Args:
        ids: (T,) events.
        most: The most semitones, up or down.
    """
    pitches = ids[(ids >= 0) & (ids < _SHIFT)] % _OFF
    if not len(pitches):
        return range(1)
    return range(max(-most, -int(pitches.min())), min(most, _OFF - 1 - int(pitches.max())) + 1)


def transposed(ids: NDArray[np.integer[Any]], semitones: int) -> NDArray[np.integer[Any]]:
    """Returns events whose keys are so many semitones higher.

    Args:
        ids: (T,) events.
        semitones: One of `transpositions`.
    """
    return np.where(ids < _SHIFT, ids + semitones, ids)


def _steps(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    is_shift = (ids >= _SHIFT) & (ids < _VELOCITY)
    return np.where(is_shift, ids - _SHIFT + 1, 0)


def _shifts(steps: int) -> list[int]:
    whole, rest = divmod(steps, _MOST_STEPS)
    return [_SHIFT + _MOST_STEPS - 1] * whole + ([_SHIFT + rest - 1] if rest else [])


def _krasserm_events(notes: Notes) -> NDArray[np.int64]:
    # As Python sorts: what is at one time stays in the order of the notes, each going down before it goes up.
    moments: list[tuple[float, int, int | None]] = []
    order: Sequence[tuple[int, int, float, float]] = notes[np.argsort(notes["start"], kind="stable")].tolist()
    for pitch, loudness, start, end in order:
        moments += [(start, pitch, loudness), (end, _OFF + pitch, None)]
    events: list[int] = []
    now, before = 0.0, 0
    for time, key, velocity in sorted(moments, key=lambda moment: moment[0]):
        events += _shifts(round((time - now) * 100))
        if velocity is not None and velocity // _VELOCITIES_A_BIN != before:
            events.append(_VELOCITY + velocity // _VELOCITIES_A_BIN)
        events.append(key)
        # His quirk: the velocity itself is kept, to be compared with a bin, and none after a key that goes up.
        now, before = time, -1 if velocity is None else velocity
    return np.array(events, dtype=np.int64)
