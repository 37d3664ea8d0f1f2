"""A picture of what a classifier confuses.

Shape legend: K classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require
from perceiver_io.pictures.figure import (
    INK,
    MUTED,
    RULE,
    new_figure,
    shortened,
    write_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "confusion_figure",
    "draw_confusion",
]

_MAX_CLASSES_WITH_COUNTS = 30
_MAX_CLASSES_WITH_NAMES = 60


def draw_confusion(
    confusion: NDArray[np.integer[Any]], class_names: Sequence[str], path: str | os.PathLike[str]
) -> None:
    """Writes the picture that `confusion_figure` makes; its arguments and errors are the same.

    Args:
        confusion: (K, K) counts; rows are true classes, columns predicted ones.
        class_names: Names of the K classes.
        path: File to write, whole or not at all; its suffix says the format.
    """
    write_figure(confusion_figure(confusion, class_names), path)


def confusion_figure(confusion: NDArray[np.integer[Any]], class_names: Sequence[str]) -> Figure:
    """Makes a figure of a confusion matrix, with the accuracy as its title.

    Colours are shares of the true class, so that rare classes are seen as well as frequent ones. Up to 30 classes
    have their counts written in; zeros off the diagonal are left out.

    Args:
        confusion: (K, K) counts; rows are true classes, columns predicted ones.
        class_names: Names of the K classes.

    Raises:
        ValueError: The matrix is not one of counts, is empty, or does not fit the names.
        ImportError: matplotlib is not installed.
    """
    confusion = np.asarray(confusion)
    num_classes = len(class_names)
    if confusion.shape != (num_classes, num_classes) or not np.issubdtype(confusion.dtype, np.integer):
        raise ValueError(
            f"A confusion matrix of {num_classes} classes is an integer array {(num_classes, num_classes)}, got "
            f"{confusion.dtype} {confusion.shape}."
        )
    if confusion.min(initial=0) < 0 or confusion.sum() == 0:
        raise ValueError("A confusion matrix holds counts, at least one of them above zero.")
    totals = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    correct, total = int(np.trace(confusion)), int(confusion.sum())

    names = [shortened(name) for name in class_names]
    cell = 0.42 if num_classes <= _MAX_CLASSES_WITH_COUNTS else 0.16
    side = min(max(cell * num_classes, 2.6), 13.0)
    with_names = num_classes <= _MAX_CLASSES_WITH_NAMES
    label_length = 0.085 * max(map(len, names)) if with_names else 0.3
    left, bottom, top, right = 0.55 + label_length, 0.5 + label_length, 0.55, 1.0
    width, height = left + side + right, bottom + side + top
    figure = new_figure(width, height)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height), label="confusion")
    colors = require("matplotlib.colors", extra="train")
    # The square root shows an error in a hundred beside ninety-nine hits.
    drawn = axes.imshow(
        shares, cmap="Blues", norm=colors.PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest"
    )
    axes.set_title(
        f"Accuracy {100 * correct / total:.2f} % ({correct:,} of {total:,})",
        fontsize=11,
        fontweight="bold",
        color=INK,
        pad=10,
    )
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    if with_names:
        longest = max(map(len, names))
        rotation = 90 if longest > 3 else 0
        axes.set_xticks(range(num_classes), names, rotation=rotation, parse_math=False)
        axes.set_yticks(range(num_classes), names, parse_math=False)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set(color=RULE)
    if num_classes <= _MAX_CLASSES_WITH_COUNTS:
        for row, column in zip(
            *np.nonzero(confusion + np.eye(num_classes, dtype=confusion.dtype)), strict=True
        ):
            color = "white" if shares[row, column] > 0.4 else INK
            count = str(confusion[row, column])
            size = min(8, 44 / len(count))
            axes.text(column, row, count, ha="center", va="center", fontsize=size, color=color)

    bar_axes = figure.add_axes(((left + side + 0.15) / width, bottom / height, 0.14 / width, side / height))
    bar = figure.colorbar(drawn, cax=bar_axes)
    bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1], labels=["0", "1 %", "10 %", "25 %", "50 %", "100 %"])
    bar.set_label("share of the true class", fontsize=8, color=INK)
    bar.outline.set_edgecolor(RULE)
    bar_axes.tick_params(labelsize=7, length=2, color=MUTED, labelcolor=MUTED)
    return figure
