"""Made-up tunes: melodies over chords, by a few rules of folk music."""

from __future__ import annotations

import numpy as np

from perceiver_io.data import LabelledRows
from perceiver_io.media.midi import Notes, new_notes

__all__ = ["MUSIC", "made_up_tune", "made_up_tunes"]

MUSIC = "music"

_NUM_TUNES = 600
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 11)}
_MODES = tuple(_SCALES)
# Degrees on which the chords of four bars stand, 0 for the tonic: phrases that stay open, and those of the middle part.
_OPEN = ((0, 3, 0, 4), (0, 5, 3, 4), (0, 0, 3, 4), (0, 4, 0, 4))
_MIDDLE = ((3, 0, 3, 4), (5, 3, 0, 4), (4, 0, 4, 4))
# How long notes are, in eighths, in a bar of so many.
_RHYTHMS = {
    8: ((2, 2, 2, 2), (1, 1, 2, 2, 2), (3, 1, 2, 2), (1, 1, 1, 1, 2, 2), (2, 1, 1, 1, 1, 2)),
    6: ((2, 2, 2), (1, 1, 2, 2), (3, 1, 2), (1, 1, 1, 1, 2), (4, 2)),
}
_EIGHTHS = (0.15, 0.18, 0.2, 0.24)  # seconds
_DOWNBEAT, _MELODY, _CHORD = 100, 84, 60
# Where the chord is struck: its lowest note, or the others, by eighth.
_ACCOMPANIMENTS = ("whole", "bass and chord", "broken")


def made_up_tunes(number: int = _NUM_TUNES) -> LabelledRows:
    """Returns tunes that were made up from a seed, labelled with their mode.

    Args:
        number: How many.
    """
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(number):
        mode = int(rng.integers(2))
        rows.append({MUSIC: made_up_tune(rng, _MODES[mode]), "label": mode})
    return LabelledRows(rows, _MODES)


def made_up_tune(rng: np.random.Generator, mode: str) -> Notes:
    """Returns a tune of sixteen bars: a phrase that stays open, the same closed, another, the closed one again.

    Key, metre, tempo, chords, rhythms and accompaniment are drawn for each tune. The melody moves by steps, and reaches
    a note of the chord where a bar begins.

    Args:
        rng: What draws.
        mode: "major" or "minor".
    """
    scale, tonic = _SCALES[mode], int(rng.integers(60, 72))
    bar = int(rng.choice([8, 6]))
    eighth = float(rng.choice(_EIGHTHS))
    accompaniment = str(rng.choice(_ACCOMPANIMENTS))
    rhythms = [_RHYTHMS[bar][index] for index in rng.choice(len(_RHYTHMS[bar]), 2, replace=False)]
    first = list(_OPEN[rng.integers(len(_OPEN))])
    middle = list(_MIDDLE[rng.integers(len(_MIDDLE))])
    opening, between = (_melody(rng, chords, rhythms, bar) for chords in (first, middle))
    closed = [*opening[:-1], [(0, bar)]]
    notes: list[tuple[int, int, int, int]] = []  # pitch, velocity, start and end in eighths
    phrases = [(first, opening), ([*first[:-1], 0], closed), (middle, between), ([*first[:-1], 0], closed)]
    start = 0
    for chords, melody in phrases:
        for degree, of_bar in zip(chords, melody, strict=True):
            at = start
            for step, length in of_bar:
                pitch = tonic + 12 * (step // 7) + scale[step % 7]
                notes.append((pitch, _DOWNBEAT if at == start else _MELODY, at, at + length))
                at += length
            notes += _chord(accompaniment, tonic - 12, scale, degree, start, bar)
            start += bar
    pitch, velocity, begin, end = np.array(notes).T
    return new_notes(pitch, velocity, begin * eighth, end * eighth)


def _melody(
    rng: np.random.Generator, chords: list[int], rhythms: list[tuple[int, ...]], bar: int
) -> list[list[tuple[int, int]]]:
    """Bars of pairs: a step of the scale, and a length in eighths."""
    bars, step = [], int(rng.choice([0, 2, 4]))
    for number, degree in enumerate(chords):
        notes = []
        rhythm = rhythms[number % 2] if number < len(chords) - 1 else (bar,)
        for place, length in enumerate(rhythm):
            if place == 0:  # to the nearest note of the chord
                step = min(
                    (one for one in range(-3, 9) if (one - degree) % 7 in (0, 2, 4)),
                    key=lambda one: (abs(one - step), one),
                )
            else:
                step = int(np.clip(step + rng.choice([-1, 1, 2, -2], p=[0.4, 0.4, 0.1, 0.1]), -3, 8))
            notes.append((step, length))
        bars.append(notes)
    return bars


def _chord(
    kind: str, root: int, scale: tuple[int, ...], degree: int, start: int, bar: int
) -> list[tuple[int, int, int, int]]:
    """The notes that accompany a bar."""
    low, *others = (
        root - 12 * (degree > 3) + 12 * ((degree + third) // 7) + scale[(degree + third) % 7]
        for third in (0, 2, 4)
    )
    if kind == "whole":
        return [(pitch, _CHORD, start, start + bar) for pitch in (low, *others)]
    if kind == "broken":
        pattern = (low, *others, others[0])
        return [(pattern[at // 2 % 4], _CHORD, start + at, start + at + 2) for at in range(0, bar, 2)]
    bass = [(low - 12, _CHORD, start + at, start + at + 2) for at in range(0, bar, 4 if bar == 8 else 6)]
    after = range(2, bar, 4) if bar == 8 else range(2, bar, 2)
    return bass + [(pitch, _CHORD, start + at, start + at + 2) for at in after for pitch in (low, *others)]
