"""What the command line needs of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from perceiver_io.training.recipe import TrainingRecipe
from perceiver_io.training.run_folder import RunFolder

__all__ = ["Task"]


class Task(ABC):
    """One kind of training run, registered with `perceiver_io.register_task`.

    All results are JSON values. Bad input raises ValueError or OSError with a message for the user.
    """

    name: ClassVar[str]
    recipe_class: ClassVar[type[TrainingRecipe]]

    @abstractmethod
    def train(self, recipe: TrainingRecipe) -> dict[str, Any]:
        """Trains a model, evaluates it on the test data, once, and writes the run folder.

        Returns:
            What was written to `metrics.json`.
        """

    @abstractmethod
    def evaluate(self, run: RunFolder, *, split: str = "test") -> dict[str, Any]:
        """Evaluates the model of a run on a split of its data, again."""

    @abstractmethod
    def predict(self, run: RunFolder, files: Sequence[str | Path], *, top_k: int = 5) -> list[dict[str, Any]]:
        """Applies the model of a run to files; one result each, in order."""

    @abstractmethod
    def draw_attention(
        self, run: RunFolder, file: str | Path, output: str | Path, *, latents: Sequence[int] | None = None
    ) -> None:
        """Draws what some latents, or a choice of them, attend to in a file."""

    @abstractmethod
    def describe_metrics(self, metrics: dict[str, Any]) -> str:
        """Returns what `train` or `evaluate` returned, as text for people."""

    @abstractmethod
    def describe_prediction(self, prediction: dict[str, Any]) -> str:
        """Returns one result of `predict`, as text for people."""
