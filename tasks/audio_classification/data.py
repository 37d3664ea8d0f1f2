"""Sounds that are made up: instruments of unlike timbre, at any pitch, in noise.

Shape legend: S samples, H harmonics.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perceiver_io.data import LabelledRows
from perceiver_io.media.sound import Sound

__all__ = ["EMBEDDED", "instruments"]

_RATE = 8000
_NUM_EACH = 250

# Amplitude of each partial by its number, 1 and up; and whether it decays, rises or stays.
_TIMBRES: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], str]] = {
    "flute": (lambda h: 0.25 ** (h - 1), "blown"),
    "clarinet": (lambda h: (h % 2) / h, "blown"),
    "trumpet": (lambda h: np.exp(-((h - 4) ** 2) / 10), "blown"),
    "organ": (lambda h: np.isin(h, (1, 2, 4, 8)).astype(np.float64), "held"),
    "guitar": (lambda h: 1 / h, "plucked"),
    "bell": (lambda h: 1 / np.sqrt(h), "plucked"),
}


def instruments() -> LabelledRows:
    """Returns 250 notes of each of six made-up instruments: any pitch of three octaves, 0.3 to 1 s, in noise.

    They differ in their partials (the bell's are no multiples of its pitch) and in how a note begins and ends. The
    noise is from 8 decibels above the note to 12 below.
    """
    rng = np.random.default_rng(0)
    rows = []
    for label, name in enumerate(_TIMBRES):
        for _ in range(_NUM_EACH):
            samples = _note(name, rng)
            rows.append({"audio": Sound(samples=samples[None], sample_rate=_RATE), "label": label})
    return LabelledRows(rows, list(_TIMBRES))


EMBEDDED = {"instruments": instruments}


def _note(name: str, rng: np.random.Generator) -> NDArray[np.float32]:
    amplitudes, kind = _TIMBRES[name]
    length = int(_RATE * rng.uniform(0.3, 1.0))
    time_S = np.arange(length) / _RATE
    pitch = 110 * 2 ** rng.uniform(0, 3)
    number_H = np.arange(1.0, 11.0)
    frequency_H = pitch * (number_H**1.4 if name == "bell" else number_H)
    heard_H = frequency_H < 0.45 * _RATE
    phase_HS = 2 * np.pi * frequency_H[:, None] * time_S + rng.uniform(0, 2 * np.pi, (len(number_H), 1))
    level_H = amplitudes(number_H) * heard_H * rng.uniform(0.7, 1.3, len(number_H))
    if kind == "plucked":  # high partials die away first
        decay_HS = np.exp(-time_S * rng.uniform(3, 6) * number_H[:, None] ** 0.5)
        note_S = (level_H[:, None] * decay_HS * np.sin(phase_HS)).sum(0)
    else:
        attack = rng.uniform(0.05, 0.12) if kind == "blown" else 0.005
        envelope_S = np.clip(time_S / attack, 0, 1) * np.clip((time_S[-1] - time_S) / 0.05, 0, 1)
        note_S = envelope_S * (level_H[:, None] * np.sin(phase_HS)).sum(0)
    note_S /= np.sqrt(np.mean(note_S**2)) + 1e-9
    noise_S = rng.standard_normal(length) * 10 ** (-rng.uniform(-8, 12) / 20)
    sound_S = (note_S + noise_S) * rng.uniform(0.05, 0.2)
    return np.clip(sound_S, -1, 1).astype(np.float32)
