"""The folder that a training run leaves behind."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from perceiver_io.config_json import read_json_object
from perceiver_io.extras import require
from perceiver_io.files import (
    absolute_path,
    check_not_inside,
    make_folder,
    remove,
    remove_empty,
    write_error,
    writing,
    writing_into,
)
from perceiver_io.progress_bars import no_progress_bars
from perceiver_io.running.folder_lock import locked
from perceiver_io.running.json_text import json_text
from perceiver_io.running.manifest import CHECKPOINTS, LOCK, Manifest
from perceiver_io.running.recipe import TrainingRecipe
from perceiver_io.running.recipe_parsing import read_recipe_file

__all__ = ["RunFolder"]

logger = logging.getLogger(__name__)

_NUM_NAMED = 5
# What every run writes at its end; tasks add pictures of their own.
_WRITTEN = {"config.json", "learning_curve.png", "metrics.json", "model.safetensors"}


class RunFolder:
    """A run folder: the model, its processor, `recipe.yaml`, `metrics.json`, pictures, and `checkpoints/`.

    Whatever is written appears whole under its name, or not at all.

    Args:
        path: The folder. It need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(absolute_path(str(path)))
        self.manifest = Manifest(self.path)
        self._made: list[Path] = []  # folders that were made for the run, the innermost first

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def recipe_file(self) -> Path:
        """The resolved recipe; a folder is a run folder if it has one."""
        return self.path / "recipe.yaml"

    @property
    def metrics_file(self) -> Path:
        """The results; written last, so that a run with this file is complete."""
        return self.path / "metrics.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def is_started(self) -> bool:
        """Whether there is a run to go on with."""
        return self.recipe_file.is_file()

    @property
    def is_complete(self) -> bool:
        """Whether the run has been trained and evaluated to its end."""
        return self.metrics_file.is_file()

    def recipe(self) -> dict[str, Any]:
        """Returns the settings that the run was trained with, `task` among them.

        Raises:
            ValueError: The folder does not exist or is no run folder.
        """
        if not self.path.is_dir():
            raise ValueError(f"There is no folder {self.path}.")
        if not self.recipe_file.is_file():
            raise ValueError(
                f"{self.path} is not a run folder: it has no recipe.yaml. Train one with: perceiver-io train"
            )
        return read_recipe_file(self.recipe_file)

    def metrics(self) -> dict[str, Any]:
        """Returns the content of `metrics.json`.

        Raises:
            ValueError: The file is missing or damaged.
        """
        try:
            return read_json_object(self.metrics_file)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"The results {self.metrics_file} cannot be read: {str(error).rstrip('.')}."
            ) from error

    def check(self, recipe: TrainingRecipe, *, task: str | None = None) -> None:
        """Refuses what a run would destroy or could not continue; changes nothing.

        Args:
            recipe: The recipe of the run that is to be written here.
            task: Name of its task; a run to resume may be of any if None.

        Raises:
            ValueError: The folder is taken and the recipe neither resumes nor overwrites it, something in it is not a
                run's, what the run reads lies in it, or the recipe or the task is not the one that the run to resume
                was started with.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"The output folder {self.path} is a file. Choose another output folder.")
        if recipe.resume and self.is_started:
            self._check_own()
            self._check_resumed(recipe, task)
            return
        if self._is_empty():
            return
        if recipe.resume:
            if not self.manifest.exists or self.manifest.strangers():
                self.recipe()  # says that this is no run folder
            return
        if not recipe.overwrite:
            raise ValueError(
                f"The output folder {self.path} exists and is not empty. Choose another one, or pass --resume to go on "
                "with the run in it or --overwrite to replace it."
            )
        if not self.manifest.exists:
            raise ValueError(
                f"The output folder {self.path} is not overwritten: it has no {self.manifest.file.name}, so nothing "
                "says which of its files a run wrote (runs of earlier versions have none). Choose another one, or "
                "remove it yourself."
            )
        if strangers := self.manifest.strangers():
            raise ValueError(
                f"The output folder {self.path} is not overwritten: the run in it did not write {_listed(strangers)}. "
                "Move what you want to keep, or choose another folder."
            )
        check_not_inside(self.path, recipe.local_sources())

    def _check_own(self) -> None:
        """Refuses to go on with what is no run, or would replace files that are not the run's."""
        if self.is_complete or (not self.manifest.exists and any(self.checkpoints.glob("checkpoint-*"))):
            return  # nothing is written, or it is a run of an earlier version
        strangers = self.manifest.strangers()
        if not self.manifest.exists:
            strangers = [name for name in strangers if name not in (self.recipe_file.name, CHECKPOINTS)]
            if strangers:
                raise ValueError(
                    f"{self.path} is not resumed: it has a recipe.yaml but no checkpoints, so nothing says that a run "
                    f"wrote {_listed(strangers)}. Choose another output folder."
                )
        elif replaced := sorted(_WRITTEN.intersection(strangers)):
            raise ValueError(
                f"The run {self.path} is not resumed: it would replace {_listed(replaced)}, which it did not write. "
                "Move what you want to keep."
            )

    def _check_resumed(self, recipe: TrainingRecipe, task: str | None) -> None:
        earlier = self.recipe()
        if task is not None and earlier.get("task", task) != task:
            raise ValueError(f"The run {self.path} is of another task than {task!r}.")
        if changes := recipe.changes_from(earlier):
            listed = ", ".join(f"{name} {was!r} -> {now!r}" for name, (was, now) in changes.items())
            moved = (
                f" If what they name has moved, change that in {self.recipe_file}."
                if set(changes) & set(recipe.sources)
                else ""
            )
            raise ValueError(
                f"The run {self.path} cannot be resumed with other settings ({listed}). Leave them as they were, "
                f"or start another run.{moved}"
            )

    @contextmanager
    def held(self, *, is_main_process: bool = True) -> Iterator[None]:
        """Makes the folder, and keeps other runs out of it during the block.

        Several processes of one training are one run: its main process holds the folder. If nothing is in it at the
        end, it is removed again.

        Raises:
            ValueError: Another run is writing to it.
            OSError: The folder cannot be written.
        """
        if not is_main_process:
            yield
            return
        try:
            self._made = make_folder(self.path)
        except OSError as error:
            raise write_error(self.path, error) from error
        with locked(self.path / LOCK) as is_held:
            try:
                yield
            finally:
                # While it is held: another run may take it from the moment that it is not.
                if is_held() and self._is_empty():
                    self._remove()

    def create(self, recipe: TrainingRecipe, *, task: str, provided_by: str | None = None) -> None:
        """Makes the folder ready for a run that `check` allows; removes an earlier run if it is to be overwritten.

        Args:
            recipe: The resolved recipe.
            task: Name of the task.
            provided_by: Which plug-in brought it, if one did.

        Raises:
            ValueError: As `check`.
            OSError: The folder cannot be written.
        """
        self.check(recipe, task=task)  # once more: another run may have been here since
        if recipe.overwrite and self.manifest.exists:
            # The folder itself stays: it may be a link or a mount.
            self.manifest.remove_files()
        starts = not self.is_started
        if recipe.resume and (starts or not any(self.checkpoints.glob("checkpoint-*"))):
            logger.warning("There is no checkpoint in %s yet: the run starts from its beginning.", self.path)
        try:
            self._made = self._made or make_folder(self.path)
            self.manifest.add([self.recipe_file.name, f"{CHECKPOINTS}/"])
            self.manifest.remove_leftovers()
            self.checkpoints.mkdir(exist_ok=True)
            if starts:
                self.write_text(self.recipe_file.name, recipe.to_yaml(task=task, provided_by=provided_by))
        except OSError as error:
            if starts:
                self._discard()
            raise write_error(self.path, error) from error

    @contextmanager
    def created(
        self,
        recipe: TrainingRecipe,
        *,
        task: str,
        provided_by: str | None = None,
        is_main_process: bool = True,
    ) -> Iterator[None]:
        """Makes the folder ready for the block, which trains; only the main process writes.

        If the block fails before there is a checkpoint, the new folder is removed again.

        Args:
            recipe: As `create`.
            task: As `create`.
            provided_by: As `create`.
            is_main_process: Whether this one writes.

        Raises:
            ValueError: As `check`.
            OSError: The folder cannot be written.
        """
        # All processes must have looked at the folder before one of them writes to it.
        processes = require("accelerate", extra="train").PartialState()
        processes.wait_for_everyone()
        if is_main_process:
            starts = recipe.overwrite or not self.is_started
            self.create(recipe, task=task, provided_by=provided_by)
        processes.wait_for_everyone()
        try:
            yield
        except Exception:
            if is_main_process and starts and not any(self.checkpoints.glob("checkpoint-*")):
                self._discard()
            raise

    def _is_empty(self) -> bool:
        """Whether there is nothing in the folder but what a process leaves that only held it."""
        return not self.path.is_dir() or all(path.name == LOCK for path in self.path.iterdir())

    def _discard(self) -> None:
        """Removes what the run wrote; then the folder, if it was made for the run and is empty."""
        with suppress(OSError):
            self.manifest.remove_files()
        if self._is_empty():
            self._remove()

    def _remove(self) -> None:
        """Removes the lock, and the folders that were made for the run."""
        with suppress(OSError):
            remove(self.path / LOCK)
        remove_empty(self._made)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Gives a temporary path to write to, which becomes the file `name` at the end of the block.

        Raises:
            OSError: It cannot be written. Nothing of it is left behind.
        """
        self.manifest.add([name])
        with writing(self.path / name) as path:
            yield path

    def write_text(self, name: str, content: str) -> None:
        """Writes a text file."""
        with self.writing(name) as path:
            path.write_text(content, encoding="utf-8")

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Writes `metrics.json`, which marks the run as complete; a number that is not finite is null there."""
        self.write_text("metrics.json", json_text(metrics) + "\n")

    def write_model(self, model: PreTrainedModel, processor: Any = None) -> None:
        """Writes the model and its processor to the folder itself, for `from_pretrained`."""
        with writing_into(self.path) as path:
            with no_progress_bars():
                model.save_pretrained(path)
            if processor is not None:
                processor.save_pretrained(path)
            self.manifest.add(f"{one.name}/" if one.is_dir() else one.name for one in path.iterdir())


def _listed(names: list[str]) -> str:
    rest = len(names) - _NUM_NAMED
    return ", ".join(names[:_NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")
