"""Point clouds in the colours of their classes: true ones beside predicted ones.

Shape legend: P points, A coordinates, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.pictures.class_colours import class_colours
from perceiver_io.pictures.figure import INK, MUTED, new_figure, shortened, write_figure
from perceiver_io.pictures.seen_points import scatter_points
from perceiver_io.tasks.dense.losses import UNKNOWN

__all__ = ["draw_parts"]

_TILE, _KEY, _CLOUDS_A_LINE, _MOST_POINTS = 1.75, 0.22, 2, 4000
_WRONG, _RIGHT, _NOT_KNOWN = "#c2182b", "#d3d7df", "#eceef2"


def draw_parts(
    clouds: Sequence[NDArray[np.floating]],
    true: Sequence[NDArray[np.int64]],
    predicted: Sequence[NDArray[np.int64]],
    class_names: Sequence[str],
    path: Path,
) -> None:
    """Draws clouds with their true and their predicted classes and where these differ, and the key to the colours.

    Args:
        clouds: (P, A) coordinates of each, of which two or three are drawn.
        true: (P,) true classes, `UNKNOWN` where there are none.
        predicted: (P,) what a model gives.
        class_names: Names of the classes.
        path: The file to write.
    """
    colours_K3 = class_colours(len(class_names)) / 255
    shown = sorted({int(one) for classes in (*true, *predicted) for one in np.unique(classes)} - {UNKNOWN})
    lines, per_line = -(-len(clouds) // _CLOUDS_A_LINE), 3 * _CLOUDS_A_LINE
    key_lines = -(-len(shown) // per_line)
    width, height = per_line * _TILE, lines * _TILE + 0.3 + key_lines * _KEY + 0.15
    figure = new_figure(width, height)

    def panel(place: int, column: int, points_PA: NDArray[np.floating], colours: Any, caption: str) -> None:
        line, side = divmod(place, _CLOUDS_A_LINE)
        left, top = (3 * side + column) * _TILE, 0.3 + line * _TILE
        box = (left / width, 1 - (top + _TILE) / height, _TILE / width, _TILE / height)
        settings: dict[str, Any] = {"projection": "3d"} if points_PA.shape[1] == 3 else {}
        axes = figure.add_axes(box, label=f"{place}: {caption}", **settings)
        axes.set_xticks([])
        axes.set_yticks([])
        drawn_P = np.linspace(0, len(points_PA) - 1, min(len(points_PA), _MOST_POINTS)).astype(np.int64)
        scatter_points(axes, points_PA, drawn_P, color=colours[drawn_P])
        if line == 0:
            figure.text(
                (left + _TILE / 2) / width, 1 - 0.18 / height, caption, ha="center", size=9, color=INK
            )

    for place, (cloud_PA, true_P, found_P) in enumerate(zip(clouds, true, predicted, strict=True)):
        points_PA = _drawable(cloud_PA)
        known_P = true_P != UNKNOWN
        true_P3 = np.where(known_P[:, None], colours_K3[np.maximum(true_P, 0)], _rgb(_NOT_KNOWN))
        wrong_P3 = np.where((known_P & (true_P != found_P))[:, None], _rgb(_WRONG), _rgb(_RIGHT))
        panel(place, 0, points_PA, true_P3, "true classes")
        panel(place, 1, points_PA, colours_K3[found_P], "predicted")
        panel(place, 2, points_PA, wrong_P3, "wrong")
    for place, index in enumerate(shown):
        line, column = divmod(place, per_line)
        left, top = (column * _TILE + 0.3) / width, 1 - (0.3 + lines * _TILE + (line + 0.5) * _KEY) / height
        figure.text(left, top, "●", size=13, color=colours_K3[index], va="center")
        figure.text(
            left + 0.2 / width,
            top,
            shortened(class_names[index]),
            size=8.5,
            color=MUTED,
            va="center",
            parse_math=False,
        )
    write_figure(figure, path)


def _drawable(cloud_PA: NDArray[np.floating]) -> NDArray[np.floating]:
    points_PA = cloud_PA[:, :3]
    return np.pad(points_PA, ((0, 0), (0, 1))) if points_PA.shape[1] == 1 else points_PA


def _rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
