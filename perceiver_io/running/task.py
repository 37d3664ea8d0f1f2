"""What the command line needs of a task."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from perceiver_io.model import PerceiverIOPreTrainedModel
from perceiver_io.running.recipe import TrainingRecipe
from perceiver_io.running.run_folder import RunFolder

__all__ = ["Layout", "Task", "TrainableTask"]

Layout = Literal["perceiver-io", "transformers"]


class Task(ABC):
    """What can be done with one kind of model, registered with `perceiver_io.register_task`.

    All results are JSON values. Bad input raises ValueError or OSError with a message for the user.

    Attributes:
        name: The name it is registered under.
        architectures: Names of the model classes whose folders `predict` takes.
        input_metavar: What `predict` takes, as its help calls it.
    """

    name: ClassVar[str]
    architectures: ClassVar[tuple[str, ...]]
    input_metavar: ClassVar[str] = "FILE"

    def add_predict_arguments(self, parser: argparse.ArgumentParser) -> None:  # noqa: B027 - none by default
        """Adds the task's own flags of `perceiver-io predict`.

        Args:
            parser: Has `--json`, `--traceback`, `--task`, `-o/--output-dir` and the inputs already.
        """

    @abstractmethod
    def predict(
        self, source: str | Path, inputs: Sequence[str], options: argparse.Namespace
    ) -> list[dict[str, Any]]:
        """Applies a model to inputs.

        Args:
            source: The model: a run folder, any folder that `perceiver_io.from_pretrained` reads, or a hub id.
            inputs: What the command line got: files, or what `input_metavar` says.
            options: The values of the flags, `output_dir` (None if not given) among them.

        Returns:
            One result per input, or per group of inputs, in order.
        """

    @abstractmethod
    def describe_prediction(self, prediction: dict[str, Any]) -> str:
        """Returns one result of `predict`, as text for people."""

    def save_processor(  # noqa: B027 - none by default
        self,
        model: PerceiverIOPreTrainedModel,
        folder: str | Path,
        *,
        source: str | Path | None = None,
        layout: Layout = "perceiver-io",
    ) -> None:
        """Writes what a model needs beside its weights: an image processor, a tokenizer. Nothing by default.

        Args:
            model: The model.
            folder: The folder of the model.
            source: Where the model came from; its processor is taken over. If None, or if there is none, the processor
                is that of the published model.
            layout: Whose classes are to read the folder.
        """


class TrainableTask(Task):
    """A task that also trains: `perceiver-io train`, `evaluate` and `attention` take it.

    Attributes:
        recipe_class: The settings of its training runs.
    """

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
    def draw_attention(
        self,
        source: str | Path,
        file: str | Path,
        output: str | Path,
        *,
        latents: Sequence[int] | None = None,
    ) -> None:
        """Draws what some latents, or a choice of them, attend to in a file.

        Args:
            source: The model, as `predict`.
            file: The file to look at.
            output: The picture to write; its suffix says the format.
            latents: Latents to draw; a choice of them if None.
        """

    @abstractmethod
    def describe_metrics(self, metrics: dict[str, Any]) -> str:
        """Returns what `train` or `evaluate` returned, as text for people."""
