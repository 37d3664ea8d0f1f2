"""A picture of how a model learned."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perceiver_io.extras import require
from perceiver_io.pictures.figure import INK, MUTED, RULE, new_figure, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_learning_curve", "has_losses", "learning_curve_figure"]

History = Sequence[Mapping[str, Any]]
Curve = tuple[list[float], list[float]]

_TRAINING, _VALIDATION = "#8a94a6", "#c2410c"
# What is logged with an evaluation but is no measure.
_TIMES = ("runtime", "per_second")


def draw_learning_curve(
    history: History,
    path: str | os.PathLike[str],
    *,
    measure: str | None = None,
    kept_step: int | None = None,
) -> None:
    """Writes the picture that `learning_curve_figure` makes; its arguments and errors are the same.

    Args:
        history: What `transformers.Trainer` logged (``trainer.state.log_history``).
        path: File to write, whole or not at all; its suffix says the format.
        measure: As there.
        kept_step: As there.
    """
    write_figure(learning_curve_figure(history, measure=measure, kept_step=kept_step), path)


def has_losses(history: History) -> bool:
    """Returns whether a loss was logged, so that there is a learning curve to draw.

    Args:
        history: What `transformers.Trainer` logged (``trainer.state.log_history``).
    """
    unit = _unit(history)
    return any(_curve(history, key, unit)[0] for key in ("loss", "eval_loss"))


def learning_curve_figure(
    history: History, *, measure: str | None = None, kept_step: int | None = None
) -> Figure:
    """Makes a figure of a training run: losses, and beside them another measure of the validation if there was one.

    Args:
        history: What `transformers.Trainer` logged (``trainer.state.log_history``).
        measure: Name of the other measure; the first that was logged if None.
        kept_step: Step of the checkpoint that was kept, which is marked; nothing is if None.

    Raises:
        ValueError: No loss was logged.
        ImportError: matplotlib is not installed.
    """
    if not has_losses(history):
        raise ValueError(
            "There is no learning curve to draw: nothing was logged with a loss. Log at least once during the training."
        )
    unit = _unit(history)
    measure = measure or _first_measure(history)
    training, validation = (_curve(history, key, unit) for key in ("loss", "eval_loss"))
    measured: Curve = ([], []) if measure is None else _curve(history, f"eval_{measure}", unit)
    num_panels = 2 if measured[0] else 1
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

    if measure is not None and measured[0]:
        is_share = "accuracy" in measure
        name = measure.replace("_", " ")
        panels[1].plot(*measured, color=_VALIDATION, linewidth=1.6, **_marker(measured))
        panels[1].set_title(f"Validation {name}", loc="left", fontsize=10, fontweight="bold", color=INK)
        if is_share:
            panels[1].yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g} %")
        kept = _point(history, f"eval_{measure}", unit, kept_step)
        if kept is not None:
            text = f"{100 * kept[1]:.2f} %" if is_share else f"{kept[1]:.4g}"
            panels[1].plot(
                [kept[0]], [kept[1]], "o", color=_VALIDATION, markersize=6, markeredgecolor="white"
            )
            panels[1].set_title(f"kept: {text} at {unit} {kept[0]:g}", loc="right", fontsize=8, color=MUTED)
    for axes in panels:
        axes.set_xlabel(unit, fontsize=9, color=INK)
        axes.grid(color=RULE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(which="both", labelsize=8, color=RULE, labelcolor=MUTED)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(RULE)
    return figure


def _first_measure(history: History) -> str | None:
    for entry in history:
        for name in entry:
            if name.startswith("eval_") and name != "eval_loss" and not name.endswith(_TIMES):
                return name.removeprefix("eval_")
    return None


def _unit(history: History) -> str:
    return "epoch" if all("epoch" in entry for entry in history) else "step"


def _curve(history: History, key: str, unit: str) -> Curve:
    points = [(float(entry[unit]), float(entry[key])) for entry in history if key in entry and unit in entry]
    return [x for x, _ in points], [y for _, y in points]


def _point(history: History, key: str, unit: str, step: int | None) -> tuple[float, float] | None:
    for entry in history:
        if step is not None and entry.get("step") == step and key in entry and unit in entry:
            return float(entry[unit]), float(entry[key])
    return None


def _marker(curve: Curve) -> dict[str, Any]:
    """A single point makes no line."""
    return {"marker": "o", "markersize": 4} if len(curve[0]) == 1 else {}
