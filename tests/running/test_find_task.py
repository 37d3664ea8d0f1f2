from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perceiver_io.registry import TASKS, TaskRegistry
from perceiver_io.running import find_task as module
from perceiver_io.running.find_task import find_task, get_task, task_of_class

from . import toy_task


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> TaskRegistry[Any]:
    """A registry of this test alone: it knows all that there is, and the toy task."""
    registry = TASKS.extended({"votes": toy_task.Votes})
    monkeypatch.setattr(module, "TASKS", registry)
    return registry


def saved(folder: Path, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_model_class_tells_its_task(tasks: TaskRegistry[Any], tmp_path: Path) -> None:
    assert isinstance(find_task(saved(tmp_path, architectures=["Voter"])), toy_task.Votes)
    assert isinstance(get_task("votes"), toy_task.Votes)


def test_a_recipe_tells_the_task_before_the_class_does(tasks: TaskRegistry[Any], tmp_path: Path) -> None:
    saved(tmp_path, architectures=["PerceiverIOForImageClassification"])
    (tmp_path / "recipe.yaml").write_text("task: votes\n")
    assert isinstance(find_task(tmp_path), toy_task.Votes)
    (tmp_path / "recipe.yaml").write_text("seed: 3\n")
    with pytest.raises(ValueError, match="does not say which task it is for"):
        find_task(tmp_path)


def test_a_class_that_several_tasks_share_tells_none(tasks: TaskRegistry[Any], tmp_path: Path) -> None:
    class Other(toy_task.Votes):
        name = "other"

    tasks.register("other")(Other)
    assert task_of_class("Voter") is None
    with pytest.raises(
        ValueError, match=r"'Voter', which belongs to no task, or to several.*--task: .*votes"
    ):
        find_task(saved(tmp_path, architectures=["Voter"]))


@pytest.mark.parametrize(
    "config", [{}, {"architectures": None}, {"architectures": []}, {"architectures": [3]}]
)
def test_a_model_that_tells_nothing(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"names no architectures.*--task"):
        find_task(saved(tmp_path, model_type="perceiver_io", **config))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"it has no config\.json"):
        find_task(tmp_path)
    with pytest.raises(ValueError, match="There is no folder /missing"):
        find_task("/missing")
    with pytest.raises(ValueError, match="no task 'juggling'"):
        get_task("juggling")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", '{"a": ' + "[" * 100_000, "nested too deeply"),
        ("config.json", "5", "must hold a JSON object, got int"),
        ("recipe.yaml", "task: " + "[" * 10_000, "nested too deeply"),
        (
            "recipe.yaml",
            "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 10)}]" for i in range(11))
            + "\ntask: *a10",
            "describes more than 100,000 values",
        ),
    ],
)
def test_files_that_have_no_end_say_no_task(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        find_task(tmp_path)
