"""Videos that are made up: scanned digits that move.

Shape legend: T frames, H height, W width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perceiver_io.data import LabelledRows
from perceiver_io.extras import require

__all__ = ["EMBEDDED", "moving_digits"]

_SIZE, _FRAMES, _DIGIT = 16, 8, 8
_DIRECTIONS = ("right", "down-right", "down", "down-left", "left", "up-left", "up", "up-right")


def moving_digits() -> LabelledRows:
    """Returns scikit-learn's 1,797 scanned digits, each moving in one of eight directions, which is its class.

    Videos have 5 to 8 frames of 16 x 16 pixels. Any digit moves from any place at any speed, and comes in at the other
    edge where it leaves the picture: a single frame tells nothing. All pixels are noisy.
    """
    images = require("sklearn.datasets", extra="train").load_digits().images / 16
    rng = np.random.default_rng(0)
    rows = []
    for index, image in enumerate(images):
        label = index % len(_DIRECTIONS)
        rows.append({"video": _moving(image, label, rng), "label": label})
    return LabelledRows(rows, list(_DIRECTIONS))


EMBEDDED = {"moving-digits": moving_digits}


def _moving(image: NDArray[np.float64], label: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(T, H, W) grey frames."""
    canvas = np.zeros((_SIZE, _SIZE))
    canvas[:_DIGIT, :_DIGIT] = image
    angle = label * np.pi / 4
    step = np.array([np.sin(angle), np.cos(angle)]) * rng.uniform(0.8, 2.5)
    start = rng.uniform(0, _SIZE, 2)
    num_frames = rng.integers(5, _FRAMES + 1)
    frames = np.stack([_shifted(canvas, start + time * step) for time in range(num_frames)])
    noisy = frames * 0.9 + rng.normal(0, 0.15, frames.shape)
    return np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def _shifted(canvas: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moves a picture round by parts of a pixel, too: a mean of the four whole moves around."""
    row, column = np.floor(by).astype(int)
    down, right = by - (row, column)
    moved = np.zeros_like(canvas)
    for rows, weight_down in ((row, 1 - down), (row + 1, down)):
        for columns, weight_right in ((column, 1 - right), (column + 1, right)):
            moved += weight_down * weight_right * np.roll(canvas, (rows, columns), (0, 1))
    return moved
