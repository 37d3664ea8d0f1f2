"""What a task declares. It never contains a loop, a file writer, a split or a device: those are the runner's."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data.splits import Splits
from perceiver_io.pictures.attention_view import AttentionView
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.running.loaded_model import LoadedModel, load_model
from perceiver_io.running.recipe import TrainingRecipe

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["Batch", "Collate", "Drawing", "Layout", "PredictOptions", "Setup", "Task", "TrainableTask"]

Batch = Mapping[str, Any]
Collate = Callable[[Sequence[Any]], Batch]
Drawing = Callable[[Path], None]
Layout = Literal["perceiver-io", "transformers"]
OURS: Layout = "perceiver-io"


@dataclass(kw_only=True)
class PredictOptions:
    """What `predict` may be told; each task adds its own fields in a subclass, which become flags of the command."""

    output_dir: str | None = field(
        default=None, metadata={"help": "Folder for the files that the task writes.", "aliases": ["-o"]}
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace files of the folder that have the names of what is written."},
    )


class Task(ABC):
    """What can be done with one kind of model, registered with `perceiver_io.register_task` or by an entry point.

    All results are JSON values. Bad input raises ValueError or OSError with a message for the user.

    Attributes:
        name: The name it is registered under.
        model_class: The class of its models.
        input_metavar: What `predict` takes, as its help calls it.
        options_class: What `predict` may be told besides.
        writes_files: Whether `predict` writes files where it is given a folder.
        pipeline_tag: What the Hugging Face hub calls the task, for model cards; as the model's class says if None.
    """

    name: ClassVar[str]
    model_class: ClassVar[type[PerceiverIOPreTrainedModel]]
    input_metavar: ClassVar[str] = "FILE"
    options_class: ClassVar[type[PredictOptions]] = PredictOptions
    writes_files: ClassVar[bool] = False
    pipeline_tag: ClassVar[str | None] = None

    @abstractmethod
    def predict(self, loaded: LoadedModel[Any], inputs: Sequence[str], options: Any) -> list[dict[str, Any]]:
        """Applies a model to inputs.

        Args:
            loaded: The model and its processor.
            inputs: What the command line got: files, or what `input_metavar` says; instead of a folder, its files.
            options: An `options_class`.

        Returns:
            One result per input, or per group of inputs, in order.
        """

    def file_suffixes(self) -> set[str]:
        """Returns the endings, in lower case, of the files that `predict` reads, so that it takes folders of them too.

        By default there are none, and a folder is nothing special.
        """
        return set()

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns one result of `predict`, as text for people: by default its names and values on a line."""
        return "  ".join(f"{name} {_short(value)}" for name, value in prediction.items())

    def attention_view(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], *, latents: Sequence[int] | None = None
    ) -> AttentionView:
        """Returns what the latents attend to in a file, or in files that belong together, to be drawn.

        Args:
            loaded: The model and its processor.
            inputs: The files, or what `input_metavar` says.
            latents: Latents that will be drawn; None for a choice of them.

        Raises:
            ValueError: The input cannot be read, or the task does not say what its model sees of one.
        """
        raise ValueError(f"The task {self.name!r} does not say what its model sees of an input.")

    def load(
        self,
        source: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> LoadedModel[Any]:
        """Loads a model of this task with its processor, ready to be used.

        Args:
            source: A run folder, any folder that `perceiver_io.from_pretrained` reads, or a hub id.
            device: Where to put it; on the accelerator if there is one, if None.
            dtype: Type of its weights; as they were saved if None.

        Raises:
            ValueError: There is no model of this task there.
            OSError: It is a hub id, and nothing can be fetched.
        """
        model = load_model(source, self.model_class, device=device, dtype=dtype)
        return LoadedModel(model=model, processor=self.load_processor(source), source=str(source))

    def load_processor(self, source: str | Path) -> Any:
        """Loads what makes the model's inputs of raw ones; by default nothing."""
        return None

    def save_processor(  # noqa: B027 - nothing by default
        self, model: Any, folder: str | Path, *, source: str | Path | None = None, layout: Layout = OURS
    ) -> None:
        """Writes what a model needs beside its weights: an image processor, a tokenizer. Nothing by default.

        Args:
            model: The model.
            folder: The folder of the model.
            source: Where the model came from; its processor is taken over. If None, or if there is none, the processor
                is that of the published model.
            layout: Whose classes are to read the folder.
        """


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a run works with.

    Attributes:
        recipe: Its settings.
        data: Its three sets.
        model: The model.
        processor: What makes the model's inputs of raw ones; None if it needs nothing.
    """

    recipe: Any
    data: Splits
    model: Any
    processor: Any = None


class TrainableTask(Task):
    """A task that also trains. `perceiver_io.running.runner` does what it declares.

    The model takes a batch as keyword arguments, and gives an output with `loss` where the batch has targets.

    Attributes:
        recipe_class: The settings of its runs.
    """

    recipe_class: ClassVar[type[TrainingRecipe]] = TrainingRecipe

    @abstractmethod
    def data(self, recipe: Any) -> Splits:
        """Reads the data that a recipe names, and splits it.

        Raises:
            ValueError: There is no such data, or it is bad.
        """

    @abstractmethod
    def config(self, recipe: Any, data: Splits) -> PerceiverIOConfig:
        """Returns the configuration of a new model.

        The runner refuses a recipe whose section `model` sets something that is not in it.
        """

    def processor(self, recipe: Any, data: Splits) -> Any:
        """Returns what makes a new model's inputs of raw ones, with `save_pretrained`; by default nothing."""
        return None

    def fresh(self, recipe: Any, data: Splits) -> tuple[PerceiverIOConfig, Any]:
        """Returns the configuration and processor of a new model: by default what `config` and `processor` return.

        A task whose configuration follows from its processor makes that once.
        """
        return self.config(recipe, data), self.processor(recipe, data)

    def new_model(self, config: PerceiverIOConfig, processor: Any) -> PerceiverIOPreTrainedModel:
        """Returns a new model of a configuration, with what is no part of that: how it generates, for instance.

        Args:
            config: The configuration.
            processor: What makes its inputs.
        """
        return self.model_class(config)

    def trained(self, source: str | Path) -> LoadedModel[Any]:
        """Loads the model that a run is to start from: by default one of this task, on the CPU in float32.

        A task may also take models of others. Then `fine_tuned` gives a configuration of this task's `model_class`; the
        weights of parts that both have are taken over.

        Raises:
            ValueError: There is no such model.
        """
        return self.load(source, device="cpu", dtype=torch.float32)

    def fine_tuned(
        self, config: PerceiverIOConfig, processor: Any, recipe: Any, data: Splits
    ) -> tuple[PerceiverIOConfig, Any]:
        """Returns the configuration and processor of a model that starts from a trained one; by default the same.

        Args:
            config: The trained model's. Decoders that are other ones in what is returned start anew.
            processor: The trained model's.
            recipe: The recipe.
            data: The data.
        """
        return config, processor

    @abstractmethod
    def collator(self, setup: Setup, *, train: bool) -> Collate:
        """Returns the function that makes a batch of rows.

        Random numbers that it draws from torch depend on the seed, the epoch and the place in the data alone.

        Args:
            setup: The run.
            train: Whether batches are to be trained on, with augmentation.
        """

    def measures(self, setup: Setup) -> dict[str, Metric]:
        """Returns what is measured besides the loss, by name: new metrics of torchmetrics; by default nothing."""
        return {}

    def update(self, measures: Mapping[str, Metric], output: Any, batch: Batch) -> None:
        """Adds a batch to the measures: by default each gets the output's `logits` and the batch's `labels`."""
        for metric in measures.values():
            metric.update(output.logits.float(), batch["labels"])

    def weight(self, batch: Batch) -> float | torch.Tensor:
        """Returns of how many things a batch's loss is the mean: by default the number of its labels' rows."""
        return len(batch["labels"])

    def results(self, setup: Setup, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what an evaluation found besides single numbers, as JSON values, by name.

        Args:
            setup: The run.
            values: What the measures gave, and `loss`.
        """
        return {
            name: value.tolist()
            for name, value in values.items()
            if isinstance(value, torch.Tensor) and value.numel() != 1
        }

    def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
        """Returns the pictures of a trained model, by file name, as functions that write one to a path.

        Args:
            setup: The run.
            results: What is written to metrics.json.
        """
        return {}

    def describe_results(self, results: Mapping[str, Any]) -> str:
        """Returns what a training or an evaluation found, on one line: by default every single number."""
        split = results["split"]
        names = [name for name in results if name.startswith(f"{split}_") and name != f"{split}_samples"]
        parts = [
            f"{name.removeprefix(f'{split}_').replace('_', ' ')} {as_number(results[name]):.4g}"
            for name in names
        ]
        return f"{split} {', '.join(parts)}, {results[f'{split}_samples']} samples"


def as_number(value: float | None) -> float:
    """Returns a result that was read from JSON as a number: null stands for one that is not finite."""
    return math.nan if value is None else value


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return " ".join(map(_short, value))
    return str(value)
