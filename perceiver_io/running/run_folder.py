"""The folder that a training run leaves behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from perceiver_io.extras import require
from perceiver_io.files import PARTIAL, remove, write_error, writing, writing_into
from perceiver_io.progress_bars import no_progress_bars
from perceiver_io.running.recipe import TrainingRecipe
from perceiver_io.running.recipe_parsing import read_recipe_file

__all__ = ["RunFolder"]


class RunFolder:
    """A run folder: the model, its processor, `recipe.yaml`, `metrics.json`, pictures, and `checkpoints/`.

    Whatever is written appears whole under its name, or not at all.

    Args:
        path: The folder. It need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()

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
        return self.path / "checkpoints"

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
            content: Any = json.loads(self.metrics_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"The results {self.metrics_file} cannot be read: {error}.") from error
        if not isinstance(content, dict):
            raise ValueError(
                f"The results {self.metrics_file} must be an object, got {type(content).__name__}."
            )
        return content

    def check(self, recipe: TrainingRecipe, *, task: str | None = None) -> None:
        """Refuses what a run would destroy or could not continue; changes nothing.

        Args:
            recipe: The recipe of the run that is to be written here.
            task: Name of its task; a run to resume may be of any if None.

        Raises:
            ValueError: The folder is taken and the recipe neither resumes nor overwrites it, it is no run folder, or
                the recipe or the task is not the one that the run to resume was started with.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"The output folder {self.path} is a file. Choose another output folder.")
        if recipe.resume:
            earlier = self.recipe()
            if task is not None and earlier.get("task", task) != task:
                raise ValueError(f"The run {self.path} is of another task than {task!r}.")
            if changes := recipe.changes_from(earlier):
                listed = ", ".join(f"{name} {was!r} -> {now!r}" for name, (was, now) in changes.items())
                raise ValueError(
                    f"The run {self.path} cannot be resumed with other settings ({listed}). Leave them as they were, "
                    "or start another run."
                )
            return
        if not self.path.is_dir() or not any(self.path.iterdir()):
            return
        if not recipe.overwrite:
            raise ValueError(
                f"The output folder {self.path} exists and is not empty. Choose another one, or pass --resume to go on "
                "with the run in it or --overwrite to replace it."
            )
        if not self.recipe_file.is_file():
            raise ValueError(
                f"The output folder {self.path} is not overwritten: it has no recipe.yaml, so it was not written by a "
                "training run. Choose another one, or remove it yourself."
            )

    def create(self, recipe: TrainingRecipe, *, task: str) -> None:
        """Makes the folder ready for a run that `check` allowed; removes an earlier run if it is to be overwritten.

        Args:
            recipe: The resolved recipe.
            task: Name of the task.

        Raises:
            OSError: The folder cannot be written.
        """
        if recipe.overwrite and self.recipe_file.is_file():
            # The folder itself stays: it may be a link or a mount. What is half removed is still known as a run.
            for path in sorted(self.path.iterdir(), key=lambda path: path == self.recipe_file):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            for leftover in (*self.path.glob(f"{PARTIAL}*"), *self.checkpoints.glob(f"{PARTIAL}*")):
                remove(leftover)
            if not recipe.resume:
                self.write_text("recipe.yaml", recipe.to_yaml(task=task))
        except OSError as error:
            if not recipe.resume:
                self._discard()
            raise write_error(self.path, error) from error

    @contextmanager
    def created(self, recipe: TrainingRecipe, *, task: str, is_main_process: bool = True) -> Iterator[None]:
        """Makes the folder ready for the block, which trains; only the main process writes.

        If the block fails before there is a checkpoint, the new folder is removed again.

        Raises:
            OSError: The folder cannot be written.
        """
        # All processes must have looked at the folder before one of them writes to it.
        processes = require("accelerate", extra="train").PartialState()
        processes.wait_for_everyone()
        if is_main_process:
            self.create(recipe, task=task)
        processes.wait_for_everyone()
        try:
            yield
        except Exception:
            if is_main_process and not recipe.resume and not any(self.checkpoints.glob("checkpoint-*")):
                self._discard()
            raise

    def _discard(self) -> None:
        """Removes what is in the folder, and then the folder, unless it is a link or a mount."""
        if self.path.is_dir():
            for path in list(self.path.iterdir()):
                remove(path)
            with suppress(OSError):
                self.path.rmdir()

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """Gives a temporary path to write to, which becomes the file `name` at the end of the block.

        Raises:
            OSError: It cannot be written. Nothing of it is left behind.
        """
        return writing(self.path / name)

    def write_text(self, name: str, content: str) -> None:
        """Writes a text file."""
        with self.writing(name) as path:
            path.write_text(content, encoding="utf-8")

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Writes `metrics.json`, which marks the run as complete."""
        self.write_text("metrics.json", json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")

    def write_model(self, model: PreTrainedModel, processor: Any = None) -> None:
        """Writes the model and its processor to the folder itself, for `from_pretrained`."""
        with writing_into(self.path) as path:
            with no_progress_bars():
                model.save_pretrained(path)
            if processor is not None:
                processor.save_pretrained(path)
