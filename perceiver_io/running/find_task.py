"""Which task a saved model belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.published import layouts
from perceiver_io.registry import TASKS
from perceiver_io.running.loaded_model import check_source
from perceiver_io.running.recipe_parsing import task_of_recipe
from perceiver_io.running.run_folder import RunFolder
from perceiver_io.running.task import Task

__all__ = ["find_task", "get_task", "task_of_class"]


def get_task(name: str, *, provided_by: Any = None) -> Task:
    """Returns the task of a name.

    Args:
        name: The name.
        provided_by: As `Registry.get`.

    Raises:
        ValueError: Nobody registered the name, or the class lacks something.
    """
    task_class = TASKS.get(name, provided_by=provided_by)
    if lacking := sorted(task_class.__abstractmethods__):
        raise ValueError(
            f"The task {name!r}, {task_class.__qualname__}, does not declare {', '.join(lacking)}. The page "
            "'Write a task' of the documentation says what they are."
        )
    task: Task = task_class()
    return task


def find_task(source: str | Path) -> Task:
    """Returns the task of a model: that of its recipe.yaml, else that of the class in its config.json.

    Args:
        source: A run folder, any folder that `perceiver_io.from_pretrained` reads, or a hub id.

    Raises:
        ValueError: There is no such folder or task, or nothing there says which task it is.
        OSError: config.json cannot be read or fetched.
    """
    folder = RunFolder(source)
    if folder.recipe_file.is_file():
        name, provided_by = task_of_recipe(folder.recipe_file)
        if not isinstance(name, str):
            raise ValueError(
                f"The recipe {folder.recipe_file} does not say which task it is for: expected a line such as 'task: "
                f"{TASKS.names()[0]}', got {name!r:.80}."
            )
        return get_task(name, provided_by=provided_by)
    architecture = _architecture(source)
    task = task_of_class(architecture)
    if task is None:
        raise ValueError(
            f"The model in {source} is a {architecture!a:.80}, which belongs to no task, or to several. Say which one "
            f"with --task: {', '.join(TASKS.names())}."
        )
    return task


def task_of_class(architecture: str) -> Task | None:
    """Returns the task that a model class belongs to; None if there is none, or several share it.

    Args:
        architecture: Name of a class of ours, or of the published class in `transformers`.
    """
    found = [task for task in _importable_tasks() if architecture == task.model_class.__name__]
    if found:
        return found[0]() if len(found) == 1 else None
    for layout in layouts():
        if architecture in layout.architectures:
            return task_of_class(layout.model_class.__name__)
    return None


def _architecture(source: str | Path) -> str:
    check_source(source, has_config=True)
    content: dict[str, Any] = PerceiverIOConfig.get_config_dict(source)[0]  # strict, whatever model it is of
    names = content.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise ValueError(
            f"{source} has no recipe.yaml, and its config.json names no architectures, so nothing says its task. "
            f"Say it with --task: {', '.join(TASKS.names())}."
        )
    return names[0]


def _importable_tasks() -> Iterator[type[Task]]:
    for name in TASKS.names():
        try:
            yield TASKS.get(name)
        except ValueError:  # a plug-in that cannot be imported must not take the others with it
            continue
