"""Points of surfaces, drawn at random: what made-up point clouds are put together from.

Shape legend: P points; all points are (P, 3), the third coordinate points up.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Generator", "Points", "attitude", "circle", "directions"]

Points: TypeAlias = NDArray[np.float64]
Generator: TypeAlias = np.random.Generator


def directions(rng: Generator, size: int) -> Points:
    """Returns points of the unit sphere, each as likely as any other."""
    normal = rng.normal(size=(size, 3))
    found: Points = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return found


def circle(rng: Generator, size: int) -> Points:
    """Returns (P, 2) points of the unit circle."""
    angle = rng.uniform(0, 2 * np.pi, size)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def attitude(rng: Generator, *, most_tilt: float = np.pi / 6) -> Points:
    """Returns a rotation: any turn about the vertical, a tilt, and a turn again, so that it may tilt any way.

    Args:
        rng: Draws it.
        most_tilt: The largest tilt, in radians.
    """
    tilt = rng.uniform(0, most_tilt)
    tilted = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return _turn(rng) @ tilted @ _turn(rng)


def _turn(rng: Generator) -> Points:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
