"""Attention along one axis: a strip for each latent, aligned with what is above.

Shape legend: M elements.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perceiver_io.pictures.attention_colors import colormap_on_white, percent
from perceiver_io.pictures.input_attention import Look
from perceiver_io.pictures.panel_sheet import PanelSheet

__all__ = ["bin_starts", "binned", "draw_strips"]

_HEIGHT, _GAP = 0.15, 0.035
_MAX_COLUMNS = 512  # more elements than that are drawn as the sums of neighbours


def draw_strips(
    sheet: PanelSheet,
    looks: Sequence[Look],
    edges: NDArray[np.float64],
    limits: tuple[float, float],
    *,
    what: str = "",
) -> None:
    """Draws a strip for each latent of each cross-attend, each on a scale of its own.

    Args:
        sheet: Where to draw.
        looks: Their weights are (M',), M' >= M.
        edges: (M + 1,) where elements begin and end; the elements after them are not drawn.
        limits: Where the strips begin and end.
        what: What the strips are, if there is something else too.
    """
    num_elements = len(edges) - 1
    starts = bin_starts(num_elements)
    for look in looks:
        sheet.heading(f"{look.name}, {what}" if what else look.name)
        for latent in look.latents:
            weights_M = latent.weights[:num_elements]
            drawn = binned(weights_M)
            largest = float(drawn.max())
            axes = sheet.axes(sheet.width, _HEIGHT, label=f"{look.name}: {latent.label}", left=sheet.left)
            axes.pcolormesh(
                np.append(edges[starts], edges[-1]),
                [0, 1],
                drawn[None],
                cmap=colormap_on_white(),
                vmin=0,
                vmax=largest or 1.0,
            )
            axes.set_xlim(limits)
            sheet.row(_HEIGHT, label=latent.label, note=f"max {percent(largest)}")
            sheet.skip(_HEIGHT + _GAP)
        sheet.skip(0.1)


def bin_starts(num_elements: int) -> NDArray[np.int64]:
    """Returns where the columns begin that elements are drawn in.

    Args:
        num_elements: M.
    """
    return np.linspace(0, num_elements, min(num_elements, _MAX_COLUMNS) + 1).astype(np.int64)[:-1]


def binned(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the columns that elements are drawn in: sums of neighbours, where there are many.

    Args:
        weights: (..., M).
    """
    summed: NDArray[np.float32] = np.add.reduceat(weights, bin_starts(weights.shape[-1]), axis=-1)
    return summed
