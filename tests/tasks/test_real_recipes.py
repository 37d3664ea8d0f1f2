"""Recipes of real sets build their model, and it takes a step on a batch of the right shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import perceiver_io
from perceiver_io.data import Splits
from perceiver_io.registry import TASKS
from perceiver_io.running import TrainableTask, parse_recipe, read_recipe_file
from perceiver_io.running.building import build

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)


def video() -> dict[str, Any]:
    return {"video": RNG.integers(0, 256, (40, 240, 320, 3), dtype=np.uint8)}


def cloud() -> dict[str, Any]:
    return {"cloud": RNG.normal(size=(3000, 3)).astype(np.float32)}


# For each recipe a row of its set, but for the label, and how many classes there are.
CASES: Mapping[str, tuple[Callable[[], dict[str, Any]], int]] = {
    "video_classification/kinetics": (video, 700),
    "video_classification/video_folder": (video, 5),
    "point_cloud_classification/modelnet40": (cloud, 40),
    "point_cloud_classification/cloud_folder": (cloud, 5),
}


@pytest.mark.parametrize("name", CASES)
def test_a_recipe_takes_a_step(name: str) -> None:
    make, num_classes = CASES[name]
    folder, file = name.split("/")
    task_name = folder.replace("_", "-")
    task_class = TASKS.get(task_name)
    assert issubclass(task_class, TrainableTask)
    path = Path(perceiver_io.tasks.__path__[0]) / folder / "recipes" / f"{file}.yaml"
    values = read_recipe_file(path, task=task_name)
    if (encoder := values.get("model", {}).get("encoder")) is not None:
        encoder["num_self_attends_per_block"] = 1  # deeper ones take minutes
    recipe = parse_recipe(task_class.recipe_class, values=values)
    rows = [{**make(), "label": num_classes - 1}]
    names = tuple(f"class {index}" for index in range(num_classes))
    task, data = task_class(), Splits(train=rows, validation=None, test=rows, class_names=names)
    setup = build(task, replace(recipe, device="cpu"), data)
    model = setup.model.train()
    output = model(**task.collator(setup, train=True)(rows))
    assert output.logits.shape == (1, num_classes)
    output.loss.backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
