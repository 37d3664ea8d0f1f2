from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from perceiver_io.pictures.learning_curve import draw_learning_curve, has_losses, learning_curve_figure

HISTORY: list[dict[str, Any]] = [
    {"loss": 2.0, "learning_rate": 1e-3, "grad_norm": 1.0, "epoch": 1.0, "step": 10},
    {"eval_loss": 1.5, "eval_accuracy": 0.5, "eval_runtime": 0.1, "epoch": 1.0, "step": 10},
    {"loss": 0.1, "learning_rate": 5e-4, "grad_norm": 1.0, "epoch": 2.0, "step": 20},
    {"eval_loss": 0.4, "eval_accuracy": 0.875, "eval_runtime": 0.1, "epoch": 2.0, "step": 20},
    {"loss": 0.05, "learning_rate": 1e-4, "grad_norm": 1.0, "epoch": 3.0, "step": 30},
    {"eval_loss": 0.6, "eval_accuracy": 0.75, "eval_runtime": 0.1, "epoch": 3.0, "step": 30},
    {"train_loss": 0.7, "train_runtime": 3.0, "total_flos": 0.0, "epoch": 3.0, "step": 30},
]


def title(axes: Axes) -> str:
    return str(axes.get_title(loc="left"))


def test_learning_curve_shows_what_was_logged() -> None:
    loss, accuracy = learning_curve_figure(HISTORY, kept_step=20).axes
    training, validation = loss.get_lines()
    np.testing.assert_array_equal(training.get_xydata(), [[1, 2], [2, 0.1], [3, 0.05]])
    np.testing.assert_array_equal(validation.get_xydata(), [[1, 1.5], [2, 0.4], [3, 0.6]])
    curve, kept = accuracy.get_lines()
    np.testing.assert_array_equal(curve.get_xydata(), [[1, 0.5], [2, 0.875], [3, 0.75]])
    np.testing.assert_array_equal(kept.get_xydata(), [[2, 0.875]])
    assert accuracy.get_title(loc="right") == "kept: 87.50 % at epoch 2"
    assert loss.get_yscale() == "log"


def test_learning_curve_without_validation() -> None:
    history = [{"loss": 2.0, "step": 1}, {"loss": 1.0, "step": 2}]
    assert has_losses(history)
    (loss,) = learning_curve_figure(history).axes
    assert (loss.get_xlabel(), loss.get_yscale()) == ("step", "linear")


def test_learning_curve_of_a_run_that_diverged(tmp_path: Path) -> None:
    history = [{"loss": loss, "step": step} for step, loss in enumerate([2.0, float("inf"), float("nan")])]
    draw_learning_curve(history, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.format == "PNG" and picture.width > 300


@pytest.mark.parametrize("history", [[], [{"train_loss": 1.0, "epoch": 1.0, "step": 1}]])
def test_learning_curve_of_nothing(history: list[dict[str, float]]) -> None:
    assert not has_losses(history)
    with pytest.raises(ValueError, match="nothing was logged"):
        learning_curve_figure(history)


MEASURED: list[dict[str, Any]] = [
    {"loss": 2.0, "epoch": 1.0, "step": 10},
    {"eval_loss": 1.5, "eval_mean_error": 12.0, "eval_accuracy": 0.5, "epoch": 1.0, "step": 10},
    {"eval_loss": 1.6, "eval_mean_error": 9.5, "eval_accuracy": 0.25, "epoch": 2.0, "step": 20},
]


def test_the_measure_that_is_asked_for_is_drawn() -> None:
    _, panel = learning_curve_figure(MEASURED, measure="accuracy").axes
    assert title(panel) == "Validation accuracy"
    np.testing.assert_array_equal(panel.get_lines()[0].get_xydata(), [[1, 0.5], [2, 0.25]])
    assert panel.yaxis.get_major_formatter()(0.5, 0) == "50 %"


def test_a_measure_that_is_no_share_has_plain_numbers() -> None:
    _, panel = learning_curve_figure(MEASURED, kept_step=20).axes  # the first that was logged
    assert title(panel) == "Validation mean error"
    assert panel.get_title(loc="right") == "kept: 9.5 at epoch 2"
    np.testing.assert_array_equal(panel.get_lines()[1].get_xydata(), [[2, 9.5]])


@pytest.mark.parametrize("kept_step", [None, 15])
def test_nothing_is_marked_where_nothing_was_measured(kept_step: int | None) -> None:
    _, panel = learning_curve_figure(MEASURED, kept_step=kept_step).axes
    assert panel.get_title(loc="right") == "" and len(panel.get_lines()) == 1


def test_a_measure_that_was_not_logged_has_no_panel() -> None:
    assert len(learning_curve_figure(MEASURED, measure="speed").axes) == 1
