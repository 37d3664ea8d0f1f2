"""A digit that is both seen and heard, made up so that neither is enough.

Shape legend: S samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perceiver_io.data import LabelledRows
from perceiver_io.extras import require
from perceiver_io.media.sound import Sound

__all__ = ["EMBEDDED", "seen_and_heard"]

_RATE = 2000
_LOW, _HIGH = 300, 500  # hertz: dots and dashes
_MORSE = ("-----", ".----", "..---", "...--", "....-", ".....", "-....", "--...", "---..", "----.")


def seen_and_heard() -> LabelledRows:
    """Returns scikit-learn's scanned digits, each with a tone sequence that spells it, both spoilt.

    A picture loses a window of it, and is noisy. A sound has the five signs of the digit in Morse code, a low tone for
    a dot and a high one for a dash, at any speed and in noise; some signs are too faint to be told.
    """
    digits = require("sklearn.datasets", extra="train").load_digits()
    rng = np.random.default_rng(0)
    rows = []
    for picture, label in zip(digits.images, digits.target.tolist(), strict=True):
        sound = Sound(samples=_spelled(label, rng)[None], sample_rate=_RATE)
        rows.append({"image": _spoilt(picture, rng), "audio": sound, "label": label})
    return LabelledRows(rows, [str(name) for name in digits.target_names])


EMBEDDED = {"seen-and-heard": seen_and_heard}


def _spoilt(picture: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """(8, 8) grey levels of a picture with 17 grey levels from 0 to 16, a window of it hidden."""
    noisy = picture / 16 + rng.normal(0, 0.12, picture.shape)
    row, column = rng.integers(1, 5, 2)
    noisy[row : row + 3, column : column + 3] = 0
    return np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def _spelled(digit: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The signs of a digit as tones, 0.5 to 1.2 s, after a silence."""
    length = _RATE * rng.uniform(0.08, 0.15)  # of a sign: fast or slow, all in all
    parts = [np.zeros(int(_RATE * rng.uniform(0, 0.25)))]
    for sign in _MORSE[digit]:
        time_S = np.arange(int(length * rng.uniform(0.8, 1.2))) / _RATE
        pitch = (_HIGH if sign == "-" else _LOW) * rng.uniform(0.95, 1.05)
        loudness = 0.05 if rng.random() < 0.15 else rng.uniform(0.7, 1.3)
        parts.append(loudness * np.sin(2 * np.pi * pitch * time_S + rng.uniform(0, 2 * np.pi)))
        parts.append(np.zeros(int(length * rng.uniform(0.2, 0.4))))
    sound_S = np.concatenate(parts)
    sound_S = sound_S + rng.normal(0, 0.5, len(sound_S))
    return (0.1 * sound_S).astype(np.float32)
