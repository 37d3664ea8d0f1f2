"""The contract of trainable tasks, as checks that raise an AssertionError which says what is wrong."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.multiprocessing.spawn import spawn

from perceiver_io.running import RunFolder, TrainableTask, TrainingRecipe
from perceiver_io.running.building import build
from perceiver_io.running.runner import attention, evaluate, predict, train
from perceiver_io.testing import common

__all__ = ["TASK_CHECKS", "TaskCase", "check_processes", "check_task"]

_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class TaskCase:
    """A trainable task, with settings that make its run small. Each check takes a few seconds.

    Attributes:
        task_class: The class; other processes import it by its module.
        settings: Fields of its recipe: little data, a tiny model, an even batch size.
        inputs: What `predict` takes: files, or what the task calls inputs.
        folder: Where runs are written: an empty, temporary one.
        num_together: How many of the inputs belong to one picture of the attention.
        tolerance: How far the losses of two processes may be from those of one, relative. Where training draws at
            random (what is masked, how an image is varied), each process draws its own, and this has to be wider.
        without_gradient: What the names of parameters begin with that no batch gives a gradient.
    """

    task_class: type[TrainableTask]
    settings: Mapping[str, Any]
    inputs: Sequence[str]
    folder: Path
    num_together: int = 1
    tolerance: float = 1e-5
    without_gradient: tuple[str, ...] = ()

    def recipe(self, **changes: Any) -> TrainingRecipe:
        """Returns a recipe of three steps on the processor, each with a checkpoint."""
        fixed = {
            "max_steps": _STEPS,
            "evaluate_every": 1,
            "save_total_limit": _STEPS,
            "log_every": 1,
            "device": "cpu",
            "num_threads": 1,
            "report_to": "none",
        }
        return self.task_class.recipe_class(**{**self.settings, **fixed, **changes})

    @cached_property
    def run(self) -> Path:
        """The folder of a run that was trained to its end."""
        path = self.folder / "run"
        train(self.task_class(), self.recipe(output_dir=str(path)))
        return path


def check_run(case: TaskCase) -> None:
    """A run trains, and leaves a model, its recipe, its results and pictures."""
    run = RunFolder(case.run)
    metrics = run.metrics()
    assert metrics["steps"] == _STEPS, f"The run took {metrics['steps']} steps, expected {_STEPS}."
    losses = [entry["loss"] for entry in metrics["history"] if "loss" in entry]
    assert losses and all(map(math.isfinite, losses)), f"The training losses are {losses}."
    assert metrics["test_samples"] > 0, "The test set is empty."
    assert run.recipe()["task"] == case.task_class.name, "recipe.yaml names another task."
    names = {path.name for path in case.run.iterdir()}
    missing = {
        "config.json",
        "model.safetensors",
        "recipe.yaml",
        "metrics.json",
        "learning_curve.png",
    } - names
    assert not missing, f"The run folder lacks {sorted(missing)}."
    empty = [path.name for path in case.run.glob("*.png") if not path.stat().st_size]
    assert not empty, f"The pictures {empty} are empty."
    described = case.task_class().describe_results(metrics)
    assert described and "\n" not in described, f"describe_results gives {described!r}, expected one line."


def check_resume(case: TaskCase) -> None:
    """A run that was stopped after its first checkpoint and resumed ends with the same bits."""
    path = case.folder / "resumed"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(case.run, path)
    for file in path.iterdir():
        if file.is_file() and file.name != "recipe.yaml":
            file.unlink()
    for step in range(2, _STEPS + 1):
        shutil.rmtree(path / "checkpoints" / f"checkpoint-{step}")
    train(case.task_class(), case.recipe(output_dir=str(path), resume=True))
    whole, parts = (load_file(folder / "model.safetensors") for folder in (case.run, path))
    different = [name for name, value in whole.items() if not torch.equal(value, parts[name])]
    assert not different, (
        f"After resuming, {different} are not what they are without an interruption: does something random depend on "
        "more than torch's generator, or on what came before?"
    )


def check_evaluate(case: TaskCase) -> None:
    """Evaluating a run again gives what its metrics.json says."""
    stored = RunFolder(case.run).metrics()
    again = evaluate(case.task_class(), case.run)
    for name, value in again.items():
        if isinstance(value, float):
            assert math.isclose(value, stored[name], rel_tol=1e-5, abs_tol=1e-7), (
                f"evaluate gives {name} {value}, metrics.json says {stored[name]}."
            )
        else:
            assert value == stored[name], f"evaluate gives another {name} than metrics.json."


def check_predict(case: TaskCase) -> None:
    """Predictions are JSON, can be described, and are the same alone as together; the attention can be drawn."""
    task = case.task_class()
    results = predict(task, case.run, case.inputs)
    assert results, "predict gives no results."
    for result in results:
        try:
            assert json.loads(json.dumps(result, allow_nan=False)) == result
        except (TypeError, ValueError, AssertionError) as error:
            raise AssertionError(f"The result {result!r:.200} is not JSON: {error}") from error
        assert task.describe_prediction(result).strip(), (
            f"describe_prediction says nothing of {result!r:.200}."
        )
    if len(results) == len(case.inputs):
        for one, together in zip(case.inputs, results, strict=True):
            (alone,) = predict(task, case.run, [one])
            assert _near(alone, together), (
                f"The prediction of {one!r:.80} is {alone!r:.200} alone and {together!r:.200} beside others: does "
                "padding change something, the positions for example?"
            )
    picture = case.folder / "maps.png"
    attention(task, case.run, case.inputs[: case.num_together], picture)
    assert picture.stat().st_size, "The picture of the attention is empty."


def check_gradients(case: TaskCase) -> None:
    """Every parameter that should have one gets a finite gradient from a batch."""
    task, recipe = case.task_class(), case.recipe()
    data = task.data(recipe)
    with common.seeded():
        setup = build(task, recipe, data)
        rows = [data.train[index] for index in range(min(len(data.train), recipe.batch_size))]
        model = setup.model.train()
        model(**task.collator(setup, train=True)(rows)).loss.backward()
    lacking = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.isfinite().all())
    ]
    wrong = [name for name in lacking if not name.startswith(case.without_gradient or ("\0",))]
    assert not wrong, f"These parameters get no gradient, or one that is not finite: {wrong}."


def check_processes(*cases: TaskCase) -> None:
    """Two processes train to the losses of one that takes batches twice as large.

    Args:
        *cases: Any number of cases, for which the two processes are started once: to start takes longer than to train.
    """
    halves = []
    for case in cases:
        recipe, path = case.recipe(), case.folder / "two"
        assert recipe.batch_size % 2 == 0, "A case needs an even batch size."
        shutil.rmtree(path, ignore_errors=True)
        halves.append(replace(recipe, batch_size=recipe.batch_size // 2, output_dir=str(path)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runs = [(case.task_class, half) for case, half in zip(cases, halves, strict=True)]
    spawn(_train_in_process, args=(runs, port), nprocs=2)
    for case in cases:
        one, two = (RunFolder(folder).metrics() for folder in (case.run, case.folder / "two"))
        assert two["processes"] == 2
        for first, second in zip(one["history"], two["history"], strict=True):
            for name, value in first.items():
                if "loss" in name:
                    assert math.isclose(value, second[name], rel_tol=case.tolerance, abs_tol=1e-6), (
                        f"{case.task_class.__name__}: at step {first['step']} {name} is {value} in one process and "
                        f"{second[name]} in two: is `weight` the number of things that the loss is the mean of, is "
                        "nothing random, does padding change nothing?"
                    )


def _near(first: Any, second: Any) -> bool:
    """Whether two JSON values are the same, numbers up to rounding."""
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-3, abs_tol=1e-5)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_near(first[name], second[name]) for name in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_near, first, second))
    return bool(first == second)


def _train_in_process(
    rank: int, runs: Sequence[tuple[type[TrainableTask], TrainingRecipe]], port: int
) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    for task_class, recipe in runs:
        train(task_class(), recipe)
    torch.distributed.destroy_process_group()


TASK_CHECKS: dict[str, Callable[[TaskCase], None]] = {
    "run": check_run,
    "resume": check_resume,
    "evaluate": check_evaluate,
    "predict": check_predict,
    "gradients": check_gradients,
    "processes": check_processes,
}
"""The checks that every task passes, by name, each a function of a `TaskCase`."""


def check_task(case: TaskCase) -> None:
    """Runs every check of `TASK_CHECKS`.

    Raises:
        AssertionError: The task breaks the contract.
    """
    for check in TASK_CHECKS.values():
        check(case)
