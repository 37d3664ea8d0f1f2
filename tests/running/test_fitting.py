"""What a recipe leaves to the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from perceiver_io.running import TrainingRecipe, runner
from perceiver_io.running.fitting import fitted

from . import toy_task


def after(
    num_train: int, num_validation: int = 30, num_processes: int = 1, **settings: Any
) -> TrainingRecipe:
    recipe = TrainingRecipe(
        **{"num_epochs": None, "best_metric": None, "batch_size": 32, "device": "cpu"} | settings
    )
    return fitted(recipe, num_train=num_train, num_validation=num_validation, num_processes=num_processes)


@pytest.mark.parametrize(
    ("num_train", "settings", "num_epochs", "evaluate_every"),
    [
        (288, {}, 135, 5 * 9),  # 134 of 9 steps; rounded up to evaluations of the last weights
        (1438, {}, 27, None),
        (3200, {}, 12, None),
        (100_000, {}, 10, None),
        (20, {}, 300, 10),
        (288, {"batch_size": 64}, 240, 8 * 5),
        (288, {"num_processes": 2}, 240, 8 * 5),
        (288, {"gradient_accumulation_steps": 2}, 240, 8 * 5),
        (288, {"evaluate_every": 7}, 135, 7),
        (288, {"max_steps": 7}, 135, None),
        (288, {"num_epochs": 100}, 100, None),
    ],
)
def test_few_samples_want_many_epochs(
    num_train: int, settings: dict[str, Any], num_epochs: int, evaluate_every: int | None
) -> None:
    recipe = after(num_train, **settings)
    assert (recipe.num_epochs, recipe.evaluate_every) == (num_epochs, evaluate_every)


def test_an_accelerator_has_time_for_more_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert after(100_000, device="auto").num_epochs == 30
    assert after(100_000, device="cpu").num_epochs == 10


@pytest.mark.parametrize(
    ("num_validation", "given", "expected"),
    [
        (499, None, "none"),
        (500, None, "loss"),
        (0, None, "none"),
        (30, "loss", "loss"),
        (900, "none", "none"),
    ],
)
def test_many_samples_choose_a_checkpoint(num_validation: int, given: str | None, expected: str) -> None:
    assert after(288, num_validation, best_metric=given).best_metric == expected


def test_a_run_keeps_what_was_left_to_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the rule has become another one."""
    monkeypatch.setattr("perceiver_io.running.recipe.TrainingRecipe.usual_steps", 12)
    monkeypatch.setattr("perceiver_io.running.fitting._LEAST_EPOCHS", 1)
    left = {"num_epochs": None, "best_metric": None}
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_write", lambda *args: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            runner.train(toy_task.Votes(), toy_task.recipe(tmp_path / "run", **left))
    stored = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert (stored["num_epochs"], stored["best_metric"], stored["evaluate_every"]) == (3, "none", None)
    monkeypatch.setattr("perceiver_io.running.recipe.TrainingRecipe.usual_steps", 20)
    metrics = runner.train(toy_task.Votes(), toy_task.recipe(tmp_path / "run", resume=True, **left))
    assert metrics["steps"] == 12 and metrics["best_step"] is None
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text()) == stored
