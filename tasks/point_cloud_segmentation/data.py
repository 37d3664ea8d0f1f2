"""Point clouds whose every point has a class: objects that are put together from parts, and the labels of files.

Shape legend: P points, C columns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.data import Content, LabelledRows, file_feature
from perceiver_io.media.clouds import cloud_suffixes, labels_suffixes, read_labelled_cloud, read_labels
from perceiver_io.media.source import fault_of
from perceiver_io.tasks.dense.losses import UNKNOWN
from perceiver_io.tasks.modalities.cloud import CLOUD
from perceiver_io.tasks.modalities.surfaces import Generator, Points, attitude, circle, directions

__all__ = ["EMBEDDED", "LABELS", "LABELS_WITHIN", "assembled", "point_classes"]

LABELS = Content(
    column="labels",
    noun="labels",
    feature=file_feature,
    suffixes=labels_suffixes,
    fault=lambda value: fault_of(read_labels, value),
    stored=lambda path: {"bytes": None, "path": path},
    typed=CLOUD.content.typed,
)
"""Files of one integer a point, or lists of them."""

LABELS_WITHIN = Content(
    column="labels",
    noun="labels",
    feature=file_feature,
    suffixes=cloud_suffixes,
    fault=lambda value: fault_of(read_labelled_cloud, value),
    stored=LABELS.stored,
)
"""Labels that are in the files of the clouds."""

_KINDS_EACH = 200
_CANDIDATES = 1600


def point_classes(
    labels: NDArray[Any], *, num_points: int, unknown: Collection[int], num_classes: int | None = None
) -> NDArray[np.int64]:
    """Checks the labels of a cloud.

    Args:
        labels: (P,) or (P, 1) integers, which may be held as floating-point numbers.
        num_points: P.
        unknown: Values that stand for no class.
        num_classes: How many classes there are, if that is known.

    Returns:
        (P,) int64, `UNKNOWN` where there is no class.

    Raises:
        ValueError: They are of another length, no integers, or no classes.
    """
    values = np.asarray(labels)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (num_points,) or values.dtype.kind not in "fiub":
        raise ValueError(
            f"A cloud of {num_points:,} points must have a label for each, got {values.dtype} {values.shape}."
        )
    classes_P = np.nan_to_num(values, nan=0.5, posinf=0, neginf=0).astype(np.int64)
    if not np.array_equal(classes_P, values):
        place = int(np.argmax(classes_P != values))
        raise ValueError(f"Labels must be integers, got {values[place]:g} at point {place}.")
    classes_P = np.where(np.isin(classes_P, sorted(unknown)), UNKNOWN, classes_P)
    known_P = classes_P[classes_P != UNKNOWN]
    highest = np.inf if num_classes is None else num_classes - 1
    if known_P.size and not 0 <= known_P.min() <= known_P.max() <= highest:
        to = "" if num_classes is None else f" to {num_classes - 1}"
        raise ValueError(
            f"Labels must be classes from 0{to}, got {known_P.min()} to {known_P.max()}. Say with unknown_classes "
            "which values stand for no class."
        )
    return classes_P


def assembled() -> LabelledRows:
    """Returns 1,000 clouds of tables, chairs, lamps, mugs and rockets: 200 to 400 points, each with the part it is of.

    Proportions vary, and so does how parts are made: a table has four legs, or a pole on a base, as lamps have; lamps
    stand, or hang with the base on top. Objects are turned any way about the vertical and tilted by up to 10 degrees.
    Some surfaces are seen more densely than others, up to 20 % beyond a plane is missing, and all points are blurred,
    moved and scaled. Which part a point is of shows in the whole alone: at one height, and at one distance from the
    middle, are a leg, a pole, a mug's body and a rocket's hull.
    """
    rng = np.random.default_rng(0)
    rows = []
    for make in (_table, _chair, _lamp, _mug, _rocket):
        for _ in range(_KINDS_EACH):
            rows.append(_cloud(make(rng), rng))
    return LabelledRows(rows, _PARTS)


EMBEDDED = {"assembled": assembled}

_PARTS = (
    *("top", "leg", "pole", "base", "seat", "back", "shade"),
    *("body", "handle", "hull", "nose", "fin"),
)


@dataclass(frozen=True)
class _Piece:
    """A surface of one part: its size, and what draws points of it."""

    part: str
    area: float
    draw: Callable[[Generator, int], Points]


def _cloud(pieces: list[_Piece], rng: Generator) -> dict[str, Any]:
    # Each piece is seen more or less densely; thin ones are not lost.
    weights = np.array([np.sqrt(piece.area) * rng.uniform(0.6, 1.6) for piece in pieces])
    counts = np.maximum(np.round(_CANDIDATES * weights / weights.sum()).astype(int), 24)
    drawn = [piece.draw(rng, count) for piece, count in zip(pieces, counts, strict=True)]
    points = np.concatenate(drawn)
    labels = np.repeat([_PARTS.index(piece.part) for piece in pieces], counts)
    points = (points - points.mean(0)) / np.linalg.norm(points - points.mean(0), axis=1).max()
    points = points @ attitude(rng, most_tilt=np.pi / 18)
    cut, dense = directions(rng, 2)
    beyond = points @ cut
    kept = np.flatnonzero(beyond <= np.quantile(beyond, rng.uniform(0.8, 1.0)))
    chance = np.exp(rng.uniform(0, 1.5) * points[kept] @ dense)
    chosen = rng.choice(kept, rng.integers(200, 401), replace=False, p=chance / chance.sum())
    blurred = points[chosen] + rng.normal(0, 0.015, (len(chosen), 3))
    moved = blurred * rng.uniform(0.5, 2) + rng.uniform(-1, 1, 3)
    return {"cloud": moved.astype(np.float32), "labels": labels[chosen]}


def _table(rng: Generator) -> list[_Piece]:
    height, thickness = rng.uniform(0.6, 1.1), rng.uniform(0.04, 0.1)
    half = rng.uniform(0.4, 0.8, 2)
    pole = rng.uniform() < 0.4
    if rng.uniform() < 0.5 or pole:
        half = half[[0, 0]]
    if rng.uniform() < 0.5 and half[0] == half[1]:
        pieces = [
            _disc("top", half[0], height),
            _disc("top", half[0], height + thickness),
            _tube("top", half[0], half[0], height, height + thickness),
        ]
    else:
        pieces = [_box("top", (*half, thickness / 2), (0, 0, height + thickness / 2))]
    if pole:
        return pieces + _stand(rng, height, half[0] * rng.uniform(0.4, 0.8))
    return pieces + _legs(rng, half * rng.uniform(0.6, 0.9), height)


def _chair(rng: Generator) -> list[_Piece]:
    height, thickness = rng.uniform(0.4, 0.7), rng.uniform(0.04, 0.1)
    half = rng.uniform(0.22, 0.4, 2)
    pieces = [_box("seat", (*half, thickness / 2), (0, 0, height + thickness / 2))]
    tall, lean = rng.uniform(0.35, 0.8), rng.uniform(0, 0.15)
    y = half[1] - 0.03
    if rng.uniform() < 0.5:
        boards = [(half[0], tall / 2, 0.0, height + thickness + tall / 2)]
    else:  # two posts and some boards between them
        posts = [
            (0.035, tall / 2, side * (half[0] - 0.035), height + thickness + tall / 2) for side in (-1, 1)
        ]
        levels = np.linspace(0.35, 1, int(rng.integers(2, 4))) * tall + height + thickness
        boards = [*posts, *((half[0], 0.05, 0.0, level - 0.05) for level in levels)]
    for wide, high, x, z in boards:
        flat = _box("back", (wide, 0.025, high), (x, y, z))
        pieces.append(_leaning(flat, lean, height + thickness))
    return pieces + _legs(rng, half * rng.uniform(0.75, 0.95), height)


def _lamp(rng: Generator) -> list[_Piece]:
    height, wide = rng.uniform(1.0, 2.0), rng.uniform(0.25, 0.5)
    tall = rng.uniform(0.3, 0.6)
    shade = _tube("shade", wide, wide * rng.uniform(0.3, 0.9), height - tall * 0.6, height + tall * 0.4)
    stand = _stand(rng, height, wide * rng.uniform(0.5, 0.9))
    if rng.uniform() < 0.6:
        return [shade, *stand]
    # It hangs: the base is at the ceiling, and the shade opens downwards.
    return [shade, *(_upside_down(piece, height) for piece in stand)]


def _mug(rng: Generator) -> list[_Piece]:
    wide, tall = rng.uniform(0.35, 0.6), rng.uniform(0.7, 1.3)
    pieces = [_tube("body", wide * rng.uniform(0.75, 1), wide, 0, tall), _disc("body", wide * 0.8, 0)]
    reach, tube = tall * rng.uniform(0.2, 0.36), rng.uniform(0.03, 0.07)
    level = tall * rng.uniform(0.4, 0.6)

    def handle(generator: Generator, size: int) -> Points:
        angle = generator.uniform(-np.pi / 2, np.pi / 2, size)
        across = tube * circle(generator, size)
        far = reach + across[:, 0]
        return np.column_stack([wide * 0.95 + far * np.cos(angle), across[:, 1], level + far * np.sin(angle)])

    return [*pieces, _Piece("handle", np.pi * reach * 2 * np.pi * tube, handle)]


def _rocket(rng: Generator) -> list[_Piece]:
    wide, tall = rng.uniform(0.14, 0.3), rng.uniform(0.9, 1.6)
    nose = wide * rng.uniform(1.2, 3.0)
    pieces = [_tube("hull", wide, wide, 0, tall), _tube("nose", wide, 0, tall, tall + nose)]
    reach, high = wide * rng.uniform(0.8, 1.6), tall * rng.uniform(0.2, 0.4)
    number, first = int(rng.integers(3, 5)), rng.uniform(0, 2 * np.pi)
    for index in range(number):
        pieces.append(_fin(wide, reach, high, first + index * 2 * np.pi / number))
    return pieces


def _legs(rng: Generator, half: NDArray[np.float64], height: float) -> list[_Piece]:
    wide, round_, spread = rng.uniform(0.025, 0.06), rng.uniform() < 0.5, rng.uniform(1, 1.15)
    pieces = []
    for x, y in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        at = (x * half[0], y * half[1])
        if round_:
            pieces.append(_slanted(_tube("leg", wide, wide, 0, height), at, spread, height))
        else:
            pieces.append(
                _slanted(_box("leg", (wide, wide, height / 2), (0, 0, height / 2)), at, spread, height)
            )
    return pieces


def _stand(rng: Generator, height: float, wide: float) -> list[_Piece]:
    """A pole on a base, flat or like a cone."""
    thickness, pole = rng.uniform(0.03, 0.12), rng.uniform(0.025, 0.06)
    upper = wide * rng.uniform(0.2, 1)
    return [
        _disc("base", wide, 0),
        _tube("base", wide, upper, 0, thickness),
        _disc("base", upper, thickness),
        _tube("pole", pole, pole, thickness, height),
    ]


def _box(part: str, half: tuple[float, ...], centre: tuple[float, ...]) -> _Piece:
    sizes, middle = np.array(half), np.array(centre)
    faces = 8 * np.array([sizes[1] * sizes[2], sizes[0] * sizes[2], sizes[0] * sizes[1]])

    def draw(rng: Generator, size: int) -> Points:
        points = rng.uniform(-1, 1, (size, 3))
        axis = rng.choice(3, size, p=faces / faces.sum())
        points[np.arange(size), axis] = rng.choice([-1, 1], size)
        return points * sizes + middle

    return _Piece(part, float(faces.sum()), draw)


def _tube(part: str, lower: float, upper: float, bottom: float, top: float) -> _Piece:
    """The mantle of a cylinder, or of a cone, about the vertical."""
    area = np.pi * (lower + upper) * np.hypot(top - bottom, upper - lower)

    def draw(rng: Generator, size: int) -> Points:
        thin, thick = min(lower, upper), max(lower, upper)
        radius = np.sqrt(rng.uniform(thin**2, thick**2, size)) if thin < thick else np.full(size, lower)
        level = (radius - lower) / (upper - lower) if lower != upper else rng.uniform(0, 1, size)
        return np.column_stack([radius[:, None] * circle(rng, size), bottom + level * (top - bottom)])

    return _Piece(part, float(area), draw)


def _disc(part: str, radius: float, level: float) -> _Piece:
    def draw(rng: Generator, size: int) -> Points:
        far = radius * np.sqrt(rng.uniform(0, 1, size))
        return np.column_stack([far[:, None] * circle(rng, size), np.full(size, level)])

    return _Piece(part, np.pi * radius**2, draw)


def _fin(wide: float, reach: float, high: float, angle: float) -> _Piece:
    """A triangle that stands on the ground, beside the hull."""

    def draw(rng: Generator, size: int) -> Points:
        weights = rng.dirichlet([1, 1, 1], size)
        far = wide + reach * weights[:, 0]
        return np.column_stack([far * np.cos(angle), far * np.sin(angle), high * weights[:, 1]])

    return _Piece("fin", reach * high, draw)


def _slanted(piece: _Piece, at: tuple[float, float], spread: float, height: float) -> _Piece:
    """A leg whose foot is farther out than where it is fixed."""

    def draw(rng: Generator, size: int) -> Points:
        points = piece.draw(rng, size)
        out = 1 + (spread - 1) * (1 - points[:, 2:] / height)
        points[:, :2] += np.array(at) * out
        return points

    return _Piece(piece.part, piece.area, draw)


def _leaning(piece: _Piece, lean: float, above: float) -> _Piece:
    def draw(rng: Generator, size: int) -> Points:
        points = piece.draw(rng, size)
        points[:, 1] += lean * (points[:, 2] - above)
        return points

    return _Piece(piece.part, piece.area, draw)


def _upside_down(piece: _Piece, height: float) -> _Piece:
    def draw(rng: Generator, size: int) -> Points:
        points = piece.draw(rng, size)
        points[:, 2] = 2 * height - points[:, 2]
        return points

    return _Piece(piece.part, piece.area, draw)
