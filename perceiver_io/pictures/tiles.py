"""Attention in two or three dimensions: a tile for each latent, side by side.

Shape legend: G grid height, g grid width, H image height, W image width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.pictures.attention_colors import backdrop, overlay_colormap, percent
from perceiver_io.pictures.figure import MUTED
from perceiver_io.pictures.input_attention import Look
from perceiver_io.pictures.panel_sheet import PanelSheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Draw = Callable[[Axes, NDArray[np.float32]], float]

__all__ = ["draw_backdrop", "draw_seen", "draw_tiles", "draw_weights", "tile_width"]

_GAP, _LABEL = 0.13, 0.3


def draw_seen(sheet: PanelSheet, size: tuple[float, float], **settings: Any) -> Axes:
    """Places a tile for what was seen, left of those that `draw_tiles` places next.

    Args:
        sheet: Where to draw.
        size: Width and height of a tile.
        **settings: Of `PanelSheet.axes`.
    """
    top = sheet.heading_height + _LABEL
    sheet.text("seen", size=7.5, below=top - 0.08)
    return sheet.axes(*size, label="seen", left=sheet.margin, below=top, **settings)


def tile_width(num_tiles: int, width: float) -> float:
    """Returns how wide tiles are.

    Args:
        num_tiles: How many there are in a line.
        width: How wide they are together.
    """
    return (width + _GAP) / num_tiles - _GAP


def draw_tiles(
    sheet: PanelSheet,
    looks: Sequence[Look],
    draw: Draw,
    *,
    left: float,
    size: tuple[float, float],
    per_line: int,
    **settings: Any,
) -> list[Axes]:
    """Draws a tile for each latent of each cross-attend, and returns those that begin a line.

    Args:
        sheet: Where to draw.
        looks: What to draw.
        draw: Draws weights in a tile, and returns the highest.
        left: Where the first tile of a line begins.
        size: Width and height of a tile.
        per_line: How many there are in a line.
        **settings: Of `PanelSheet.axes`.
    """
    width, height = size
    first_ones: list[Axes] = []
    for look in looks:
        sheet.heading(look.name, left=left)
        for start in range(0, len(look.latents), per_line):
            for column, latent in enumerate(look.latents[start : start + per_line]):
                at = left + column * (width + _GAP)
                axes = sheet.axes(
                    width, height, label=f"{look.name}: {latent.label}", left=at, below=_LABEL, **settings
                )
                highest = draw(axes, latent.weights)
                if not column:
                    first_ones.append(axes)
                sheet.text(latent.label, left=at, size=7.5, below=0.08)
                sheet.text(f"max {percent(highest)}", left=at, size=6.5, color=MUTED, below=0.21)
            sheet.skip(_LABEL + height + 0.06)
        sheet.skip(0.1)
    return first_ones


def draw_backdrop(axes: Axes, pixels: NDArray[np.uint8], **style: Any) -> None:
    """Draws a picture as what attention is drawn over.

    Args:
        axes: Where to draw.
        pixels: (H, W) or (H, W, 3) uint8.
        **style: Of `matplotlib.axes.Axes.imshow`.
    """
    axes.imshow(backdrop(pixels), cmap="gray", vmin=0, vmax=255, **style)


def draw_weights(axes: Axes, weights_Gg: NDArray[np.float32], *, highest: float, **style: Any) -> None:
    """Draws attention in colours over what is there.

    Args:
        axes: Where to draw.
        weights_Gg: The attention.
        highest: Where the colour scale ends.
        **style: Of `matplotlib.axes.Axes.imshow`.
    """
    axes.imshow(weights_Gg, cmap=overlay_colormap(), vmin=0, vmax=highest or 1.0, **style)
