"""Pictures of a training run: what the classifier confuses, and how it learned.

Each picture has a function that makes the figure and one that writes it. They use the object interface of
matplotlib, so they need no display and change no state of a program that draws with pyplot.

Shape legend: K classes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
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
    "draw_learning_curve",
    "has_losses",
    "learning_curve_figure",
]

_MAX_CLASSES_WITH_COUNTS = 30
_MAX_CLASSES_WITH_NAMES = 60

_TRAINING, _VALIDATION = "#8a94a6", "#c2410c"


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


def draw_learning_curve(history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Writes the picture that `learning_curve_figure` makes; its arguments and errors are the same.

    Args:
        history: What `transformers.Trainer` logged (``trainer.state.log_history``).
        path: File to write, whole or not at all; its suffix says the format.
    """
    write_figure(learning_curve_figure(history), path)


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


def has_losses(history: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether a loss was logged, so that there is a learning curve to draw.

    Args:
        history: What `transformers.Trainer` logged (``trainer.state.log_history``).
    """
    unit = _unit(history)
    return any(_curve(history, key, unit)[0] for key in ("loss", "eval_loss"))


def learning_curve_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Makes a figure of a training run: losses, and beside them the validation accuracy if there was one.

    Args:
        history: What `transformers.Trainer` logged (``trainer.state.log_history``).

    Raises:
        ValueError: No loss was logged.
        ImportError: matplotlib is not installed.
    """
    unit = _unit(history)
    training, validation, accuracy = (
        _curve(history, key, unit) for key in ("loss", "eval_loss", "eval_accuracy")
    )
    if not has_losses(history):
        raise ValueError(
            "There is no learning curve to draw: nothing was logged with a loss. Log at least once during the training."
        )
    num_panels = 2 if accuracy[0] else 1
    figure = new_figure(0.7 + 4.0 * num_panels, 3.2)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    panels = figure.subplots(1, num_panels, squeeze=False)[0]

    panels[0].plot(*training, color=_TRAINING, linewidth=1.3, label="training", **_marker(training))
    panels[0].plot(*validation, color=_VALIDATION, linewidth=1.6, label="validation", **_marker(validation))
    panels[0].set_title("Loss", loc="left", fontsize=10, fontweight="bold", color=INK)
    losses = [loss for loss in training[1] + validation[1] if math.isfinite(loss)]
    if losses and min(losses) > 0 and max(losses) > 10 * min(losses):
        ticker = require("matplotlib.ticker", extra="train")
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        panels[0].yaxis.set_major_formatter(lambda loss, _: f"{loss:g}")
        panels[0].yaxis.set_minor_formatter(ticker.NullFormatter())
    if training[0] and validation[0]:
        panels[0].legend(frameon=False, fontsize=8, labelcolor=INK)

    if accuracy[0]:
        best_x, best = max(zip(*accuracy, strict=True), key=lambda point: point[1])
        panels[1].plot(*accuracy, color=_VALIDATION, linewidth=1.6, **_marker(accuracy))
        panels[1].plot([best_x], [best], "o", color=_VALIDATION, markersize=6, markeredgecolor="white")
        panels[1].set_title("Validation accuracy", loc="left", fontsize=10, fontweight="bold", color=INK)
        panels[1].set_title(
            f"best {100 * best:.2f} % at {unit} {best_x:g}", loc="right", fontsize=8, color=MUTED
        )
        panels[1].yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g} %")
    for axes in panels:
        axes.set_xlabel(unit, fontsize=9, color=INK)
        axes.grid(color=RULE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(which="both", labelsize=8, color=RULE, labelcolor=MUTED)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(RULE)
    return figure


def _unit(history: Sequence[Mapping[str, Any]]) -> str:
    return "epoch" if all("epoch" in entry for entry in history) else "step"


def _curve(history: Sequence[Mapping[str, Any]], key: str, unit: str) -> tuple[list[float], list[float]]:
    points = [(float(entry[unit]), float(entry[key])) for entry in history if key in entry and unit in entry]
    return [x for x, _ in points], [y for _, y in points]


def _marker(curve: tuple[list[float], list[float]]) -> dict[str, Any]:
    """A single point makes no line."""
    return {"marker": "o", "markersize": 4} if len(curve[0]) == 1 else {}
