"""A cloud of points, each in the colour of its attention.

Shape legend: P points, A axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.pictures.attention_colors import colormap_on_white
from perceiver_io.pictures.figure import RULE
from perceiver_io.pictures.input_attention import InputAttention
from perceiver_io.pictures.panel_sheet import PanelSheet
from perceiver_io.pictures.seen import Seen, check_array, check_rows
from perceiver_io.pictures.tiles import draw_seen, draw_tiles, tile_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SeenPoints", "scatter_points"]

_MAX_POINTS = 4000
_SEEN_GAP = 0.3


@dataclass(frozen=True, kw_only=True)
class SeenPoints(Seen):
    """Points; an element is a point.

    Attributes:
        coordinates: (P, A). Of more than three axes the first three are drawn. There may be more elements, which are
            padding.
        colors: (P, 3) red, green and blue, uint8, or 0 to 1; None if the points have none.

    Raises:
        ValueError: One of them is none, or they do not fit together.
    """

    coordinates: NDArray[np.floating]
    colors: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        check_array(self.coordinates, what="coordinates", shapes="(P, A)", num_axes=(2,))
        if self.colors is None:
            return
        check_array(self.colors, what="colors", shapes="(P, 3)", num_axes=(2,))
        expected = (len(self.coordinates), 3)
        if self.colors.shape != expected:
            raise ValueError(f"colors must be {expected}, for so many points, got {self.colors.shape}.")
        rgb = _rgb(self.colors)
        if rgb.size and not (rgb.min() >= 0 and rgb.max() <= 1):
            raise ValueError("colors must be uint8, or numbers from 0 to 1.")

    @property
    def is_empty(self) -> bool:
        """Whether there are no points."""
        return not len(self.coordinates)

    def draw(self, sheet: PanelSheet, attention: InputAttention) -> None:
        """Draws the points as they were seen, then in the colours of their attention."""
        num_points, num_axes = self.coordinates.shape
        check_rows(attention, num_points, "points")
        points_PA = self.coordinates[:, :3].astype(np.float64)
        if num_axes == 1:
            points_PA = np.pad(points_PA, ((0, 0), (0, 1)))
        in_space = points_PA.shape[1] == 3
        settings = {"projection": "3d"} if in_space else {}
        notes = [f"{num_points:,} points"]
        if num_points > _MAX_POINTS:
            notes.append(
                f"{_MAX_POINTS:,} are drawn: half of them the most attended, half spread over the rest"
            )
        if num_axes > 3:
            notes.append(f"the first three of {num_axes} axes")
        sheet.note("; ".join(notes))

        tile = tile_width(6, sheet.whole_width - _SEEN_GAP)
        seen = draw_seen(sheet, (tile, tile), **settings)
        spread_P = _spread(np.arange(num_points), _MAX_POINTS)
        colors = "#3b5b8c" if self.colors is None else _rgb(self.colors)[spread_P]
        scatter_points(seen, points_PA, spread_P, color=colors)

        def draw_tile(axes: Axes, weights_M: NDArray[np.float32]) -> float:
            weights_P = weights_M[:num_points]
            highest = float(weights_P.max())
            # In the plane the most attended come last and lie on top.
            drawn_P = _drawn(weights_P)
            style = {"cmap": colormap_on_white(lowest="#d3d7df"), "vmin": 0, "vmax": highest or 1.0}
            scatter_points(axes, points_PA, drawn_P, c=weights_P[drawn_P], **style)
            return highest

        left = sheet.margin + tile + 0.13 + _SEEN_GAP
        draw_tiles(sheet, attention.looks, draw_tile, left=left, size=(tile, tile), per_line=5, **settings)


def _drawn(weights_P: NDArray[Any]) -> NDArray[np.int64]:
    """Which points are drawn, the most attended last."""
    order_P = np.argsort(weights_P, kind="stable")
    if len(order_P) <= _MAX_POINTS:
        return order_P
    half = _MAX_POINTS // 2
    return np.concatenate([_spread(np.sort(order_P[:-half]), half), order_P[-half:]])


def _spread(indices_P: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    chosen = np.linspace(0, len(indices_P) - 1, min(len(indices_P), count)).astype(np.int64)
    spread_P: NDArray[np.int64] = indices_P[chosen]
    return spread_P


def scatter_points(
    axes: Any, points_PA: NDArray[np.floating], drawn_P: NDArray[np.int64], **style: Any
) -> None:
    """Draws points in a panel that has room for all of them, in equal steps along each axis.

    Args:
        axes: The panel, with the projection "3d" for three axes.
        points_PA: All points, of two or three axes.
        drawn_P: Indices of those that are drawn, in this order.
        **style: Of matplotlib's `scatter`.
    """
    size = float(np.clip(6000 / len(drawn_P), 1.5, 16))
    low_A, high_A = points_PA.min(axis=0), points_PA.max(axis=0)
    middle_A, reach = (low_A + high_A) / 2, 0.52 * float((high_A - low_A).max()) or 1.0
    if points_PA.shape[1] == 3:
        axes.scatter(*points_PA[drawn_P].T, s=size, linewidths=0, depthshade=False, **style)
        axes.set_zticks([])
        axes.set_zlim(middle_A[2] - reach, middle_A[2] + reach)
        axes.set_box_aspect((1, 1, 1), zoom=1.15)
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.pane.set(facecolor="white", edgecolor=RULE)
            axis.line.set_color(RULE)
    else:
        axes.scatter(*points_PA[drawn_P].T, s=size, linewidths=0, **style)
    axes.set_xlim(middle_A[0] - reach, middle_A[0] + reach)
    axes.set_ylim(middle_A[1] - reach, middle_A[1] + reach)


def _rgb(colors: NDArray[Any]) -> NDArray[np.float64]:
    return colors / 255 if colors.dtype == np.uint8 else colors.astype(np.float64)
