"""A picture of predicted beside true numbers.

Shape legend: N numbers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from perceiver_io.pictures.figure import INK, MUTED, RULE, new_figure, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_scatter", "scatter_figure"]


def draw_scatter(true: npt.ArrayLike, predicted: npt.ArrayLike, path: str | os.PathLike[str]) -> None:
    """Writes the picture that `scatter_figure` makes; its arguments and errors are the same.

    Args:
        true: (N,).
        predicted: (N,).
        path: File to write, whole or not at all; its suffix says the format.
    """
    write_figure(scatter_figure(true, predicted), path)


def scatter_figure(true: npt.ArrayLike, predicted: npt.ArrayLike) -> Figure:
    """Makes a figure with a dot for each pair of a true and a predicted number, and the line where both are equal.

    Args:
        true: (N,).
        predicted: (N,).

    Raises:
        ValueError: The shapes differ, there are no numbers, or some are not finite.
        ImportError: matplotlib is not installed.
    """
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    if true.shape != predicted.shape or true.ndim != 1 or not true.size:
        raise ValueError(
            f"Numbers to compare must be two arrays (N,), got {true.shape} and {predicted.shape}."
        )
    if not (np.isfinite(true).all() and np.isfinite(predicted).all()):
        raise ValueError("Numbers to compare must be finite.")
    low, high = (float(edge([true, predicted])) for edge in (np.min, np.max))
    margin = 0.04 * (high - low) or 1.0
    figure = new_figure(4.6, 4.4)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    axes = figure.subplots()
    axes.axline((low, low), slope=1, color=RULE, linewidth=1.2)
    axes.plot(true, predicted, ".", color="#3b5b8c", alpha=0.5, markersize=5)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(low - margin, high + margin)
    axes.set_aspect("equal")
    axes.set_xlabel("true", color=INK)
    axes.set_ylabel("predicted", color=INK)
    error = np.abs(true - predicted).mean()
    axes.set_title(f"Mean absolute error {error:.4g}", loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_title(f"{true.size:,} numbers", loc="right", fontsize=8, color=MUTED)
    axes.tick_params(labelsize=8, color=RULE, labelcolor=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    return figure
