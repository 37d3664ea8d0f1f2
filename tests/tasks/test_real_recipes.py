"""The recipes of public sets, which nobody downloads here: each builds, and takes a step on rows of the right shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import perceiver_io.tasks
from perceiver_io.data import Splits
from perceiver_io.media.sound import Sound
from perceiver_io.running import TrainableTask, parse_recipe
from perceiver_io.running.building import build
from perceiver_io.running.find_task import get_task
from perceiver_io.running.recipe_parsing import read_recipe_file

TASKS = Path(perceiver_io.tasks.__path__[0])


def sound(seconds: float, rate: int) -> Sound:
    rng = np.random.default_rng(0)
    return Sound(rng.normal(0, 0.1, (1, round(seconds * rate))).astype(np.float32), rate)


def video() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 240, 320, 3), dtype=np.uint8)


def cloud() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3000, 3)).astype(np.float32)


def text(length: int) -> bytes:
    return b"a fine film " * (length // 12)


def row_of(numbers: int, categories: int) -> dict[str, Any]:
    rng = np.random.default_rng()
    cells = {f"n{index}": float(rng.normal()) for index in range(numbers)}
    return {**cells, **{f"c{index}": str(rng.choice(list("abc"))) for index in range(categories)}}


# By task and recipe: the number of classes, and the inputs of a row.
CASES: dict[tuple[str, str], tuple[int, Callable[[], dict[str, Any]]]] = {
    ("audio_classification", "speech_commands"): (36, lambda: {"audio": sound(1.0, 16000)}),
    ("audio_classification", "esc50_raw"): (50, lambda: {"audio": sound(5.0, 44100)}),
    ("point_cloud_classification", "cloud_folder"): (5, lambda: {"cloud": cloud()}),
    ("point_cloud_classification", "modelnet40"): (40, lambda: {"cloud": cloud()}),
    ("video_classification", "kinetics"): (700, lambda: {"video": video()}),
    ("video_classification", "video_folder"): (5, lambda: {"video": video()}),
    ("text_classification", "sst2"): (2, lambda: {"text": {"bytes": text(100), "path": None}}),
    ("tabular_classification", "adult"): (2, lambda: {"table": row_of(6, 8)}),
}


# Those of which a step of the whole depth takes minutes.
DEEP = {"kinetics", "modelnet40"}


@pytest.mark.parametrize(("task_name", "recipe_name"), CASES)
def test_takes_a_step(task_name: str, recipe_name: str) -> None:
    num_classes, row = CASES[task_name, recipe_name]
    task = get_task(task_name.replace("_", "-"))
    assert isinstance(task, TrainableTask)
    folder = "tabular" if task_name.startswith("tabular") else task_name
    values = read_recipe_file(TASKS / folder / "recipes" / f"{recipe_name}.yaml", task=task.name)
    labels = [0, num_classes - 1]
    if recipe_name in DEEP:
        values["model"]["encoder"]["num_self_attends_per_block"] = 1
        labels = labels[1:]
    recipe = parse_recipe(task.recipe_class, values={**values, "device": "cpu"})
    rows = [{**row(), "label": label} for label in labels]
    names = tuple(f"class {index}" for index in range(num_classes))
    setup = build(task, recipe, Splits(train=rows, validation=rows, test=rows, class_names=names))
    batch = task.collator(setup, train=True)(rows)
    output = setup.model(**batch)
    assert output.logits.shape == (len(rows), num_classes)
    output.loss.backward()
    missing = [name for name, one in setup.model.named_parameters() if one.grad is None]
    assert not missing and torch.isfinite(output.loss)


def test_housing_takes_a_step() -> None:
    task = get_task("tabular-regression")
    assert isinstance(task, TrainableTask)
    values = read_recipe_file(TASKS / "tabular" / "recipes" / "california_housing.yaml", task=task.name)
    recipe = parse_recipe(task.recipe_class, values={**values, "device": "cpu"})
    rows = [{"table": row_of(8, 0), "label": price} for price in (1.5, 5.0)]
    setup = build(task, recipe, Splits(train=rows, validation=rows, test=rows))
    output = setup.model(**task.collator(setup, train=True)(rows))
    assert output.logits.shape == (2, 1)
    output.loss.backward()


@pytest.mark.parametrize("recipe_name", ["flying_chairs", "sintel"])
def test_optical_flow_takes_a_step(recipe_name: str) -> None:
    """With frames and a depth that do not take minutes."""
    task = get_task("optical-flow")
    assert isinstance(task, TrainableTask)
    values = read_recipe_file(TASKS / "optical_flow" / "recipes" / f"{recipe_name}.yaml", task=task.name)
    assert values["image_size"] == [368, 496]
    values |= {
        "image_size": [32, 48],
        "model": {"encoder": {"num_self_attends_per_block": 1, "num_latents": 8}},
    }
    recipe = parse_recipe(task.recipe_class, values={**values, "device": "cpu"})
    frames = torch.randint(256, (2, 3, 40, 60), dtype=torch.uint8)
    row = {
        "first": frames[0],
        "second": frames[1],
        "flow": torch.randn(2, 40, 60),
        "valid": torch.rand(40, 60) < 0.8,
    }
    setup = build(task, recipe, Splits(train=[row], validation=None, test=[row]))
    output = setup.model(**task.collator(setup, train=True)([row]))
    output.loss.backward()
    missing = [name for name, one in setup.model.named_parameters() if one.grad is None]
    assert not missing and torch.isfinite(output.loss)
