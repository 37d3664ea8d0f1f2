"""Point clouds that are made up: surfaces of solids, turned, in part and blurred.

Shape legend: P points; all points are (P, 3).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perceiver_io.data import LabelledRows
from perceiver_io.tasks.modalities.surfaces import Generator, Points, attitude, circle, directions

__all__ = ["EMBEDDED", "solids"]

_NUM_EACH = 300
_CANDIDATES = 600


def solids() -> LabelledRows:
    """Returns 300 clouds of each of eight solids: 100 to 200 points of the surface, of any place and size.

    The proportions of each solid vary. It is turned any way about the vertical and tilted by up to 30 degrees. Up to
    30 % of it, beyond a plane, is missing, and all points are blurred.
    """
    rng = np.random.default_rng(0)
    rows = []
    for label, name in enumerate(_SURFACES):
        for _ in range(_NUM_EACH):
            rows.append({"cloud": _cloud(_SURFACES[name], rng), "label": label})
    return LabelledRows(rows, list(_SURFACES))


EMBEDDED = {"solids": solids}


def _cloud(surface: Callable[[Generator, int], Points], rng: Generator) -> NDArray[np.float32]:
    points = surface(rng, _CANDIDATES) @ attitude(rng)
    along = points @ directions(rng, 1)[0]
    points = points[along <= np.quantile(along, rng.uniform(0.7, 1.0))]
    points = points[rng.permutation(len(points))[: rng.integers(100, 201)]]
    blurred = points + rng.normal(0, 0.02, points.shape)
    moved = blurred * rng.uniform(0.5, 2) + rng.uniform(-1, 1, 3)
    return moved.astype(np.float32)


def _sphere(rng: Generator, size: int) -> Points:
    return directions(rng, size)


def _ellipsoid(rng: Generator, size: int) -> Points:
    return directions(rng, size) * [1, rng.uniform(0.45, 0.75), rng.uniform(0.45, 0.75)]


def _cube(rng: Generator, size: int) -> Points:
    points = rng.uniform(-1, 1, (size, 3))
    points[np.arange(size), rng.integers(0, 3, size)] = rng.choice([-1, 1], size)
    return points


def _pyramid(rng: Generator, size: int) -> Points:
    """A square as the ground, and four triangles."""
    height = rng.uniform(1.2, 2.0)
    slope = np.hypot(1, height)
    is_ground = rng.uniform(0, 1, size) < 1 / (1 + slope)
    level = np.where(is_ground, 0, 1 - np.sqrt(rng.uniform(0, 1, size)))
    square = rng.uniform(-1, 1, (size, 2))
    side = ~is_ground
    square[side, rng.integers(0, 2, side.sum())] = rng.choice([-1, 1], side.sum())
    return np.column_stack([square * (1 - level)[:, None], height * (level - 1 / 3)])


def _tetrahedron(rng: Generator, size: int) -> Points:
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    weights = rng.dirichlet([1, 1, 1, 1], size)
    weights[np.arange(size), rng.integers(0, 4, size)] = 0
    return weights / weights.sum(1, keepdims=True) @ corners


def _cylinder(rng: Generator, size: int) -> Points:
    """A wall, and two discs."""
    height = rng.uniform(1.4, 2.4)
    is_disc = rng.uniform(0, 1, size) < 1 / (1 + height)
    radius = np.where(is_disc, np.sqrt(rng.uniform(0, 1, size)), 1)
    level = np.where(is_disc, rng.choice([-1, 1], size), rng.uniform(-1, 1, size))
    return np.column_stack([radius[:, None] * circle(rng, size), level * height / 2])


def _cone(rng: Generator, size: int) -> Points:
    """A disc as the ground, and a mantle."""
    height = rng.uniform(1.4, 2.4)
    radius = np.sqrt(rng.uniform(0, 1, size))
    is_ground = rng.uniform(0, 1, size) < 1 / (1 + np.hypot(1, height))
    level = np.where(is_ground, 0, 1 - radius)
    return np.column_stack([radius[:, None] * circle(rng, size), height * (level - 1 / 3)])


def _torus(rng: Generator, size: int) -> Points:
    tube = rng.uniform(0.25, 0.45)
    across = tube * circle(rng, size)
    return np.column_stack([(1 + across[:, :1]) * circle(rng, size), across[:, 1]])


_SURFACES: dict[str, Callable[[Generator, int], Points]] = {
    "sphere": _sphere,
    "ellipsoid": _ellipsoid,
    "cube": _cube,
    "pyramid": _pyramid,
    "tetrahedron": _tetrahedron,
    "cylinder": _cylinder,
    "cone": _cone,
    "torus": _torus,
}
