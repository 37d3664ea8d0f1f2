"""Classifiers of modalities: what a task of one declares, or of several, and what all of them do with it.

Shape legend: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from perceiver_io.byte_array import PackingConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import LabelledRows, Splits, read_labelled
from perceiver_io.pictures.attention_view import AttentionView
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.running import Setup, TrainingRecipe
from perceiver_io.running.task import Batch, Collate
from perceiver_io.single_output import Arguments
from perceiver_io.tasks.classification.model import Classifier, PerceiverIOForClassification
from perceiver_io.tasks.classification.presets import ENCODERS, LABEL, classifier_config
from perceiver_io.tasks.classification.recipe import ClassificationRecipe
from perceiver_io.tasks.classification.task import ClassificationTask, is_of_classes
from perceiver_io.tasks.modalities.inputs import Inputs, Settings

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["ModalClassificationTask", "ModalRecipe"]


@dataclass(kw_only=True)
class ModalRecipe(ClassificationRecipe):
    """The recipe of a classifier of modalities; a subclass adds a section of settings for each.

    Raises:
        ValueError: A value is out of its range, or does not go with another one.
    """

    inputs_of_task: ClassVar[Inputs]
    """The modalities that have a section."""

    variant: str = field(
        default="small", metadata={"help": f"Size of the model, one of {', '.join(ENCODERS)}."}
    )
    label_smoothing: float = field(
        default=0.1, metadata={"help": "Probability spread over all classes, by the training loss."}
    )

    def __post_init__(self) -> None:
        """Checks all values, those of the sections too."""
        super().__post_init__()
        if self.variant not in ENCODERS:
            raise ValueError(f"variant is {self.variant!r:.80}, expected one of {', '.join(ENCODERS)}.")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing}, expected a fraction: at least 0, less than 1."
            )
        self.inputs_of_task.settings(self)

    @property
    def input_names(self) -> list[str]:
        """The inputs that a new model has."""
        return list(self.inputs_of_task.modalities)


class ModalClassificationTask(ClassificationTask):
    """A classifier whose inputs are modalities. A subclass says which, which data is embedded, and its model class.

    Attributes:
        inputs: The modalities.
        embedded: Functions that make the sets that need no download, by name.
    """

    model_class: ClassVar[type[Classifier]] = PerceiverIOForClassification
    inputs: ClassVar[Inputs]
    embedded: ClassVar[Mapping[str, Callable[[], Dataset | LabelledRows]]] = {}
    recipe_class: ClassVar[type[TrainingRecipe]] = ModalRecipe

    def data(self, recipe: Any) -> Splits:
        """Reads labelled files, tables, or an embedded set."""
        chosen = self.inputs.chosen(recipe.input_names)
        left_out = set(self.inputs.modalities) - set(chosen.modalities)
        embedded = {name: partial(_without, make, left_out) for name, make in self.embedded.items()}
        return read_labelled(recipe, *chosen.contents, embedded=embedded, seed=recipe.seed)

    def config(self, recipe: Any, data: Splits) -> PerceiverIOConfig:
        """Returns the preset's configuration, with the recipe's settings."""
        return self.fresh(recipe, data)[0]

    def fresh(self, recipe: Any, data: Splits) -> tuple[PerceiverIOConfig, PerceiverIOProcessor]:
        """Returns the preset's configuration and the processor that it follows from, which looks at the data once."""
        chosen, changes = self.inputs.chosen(recipe.input_names), recipe.model_settings
        processor = self.processor(recipe, data)
        config = classifier_config(
            chosen.adapters(chosen.settings(recipe), processor, changes),
            variant=recipe.variant,
            class_names=data.class_names,
            encoder=changes.encoder,
            decoder=changes.output(LABEL),
            packing={**self.packing(recipe), **changes.packing},
            of=self.name,
        )
        return config, processor

    def packing(self, recipe: Any) -> dict[str, Any]:
        """Returns fields of the new model's `PackingConfig` that differ from the defaults."""
        return {}

    def processor(self, recipe: Any, data: Splits) -> PerceiverIOProcessor:
        """Returns the processor of a new model."""
        chosen = self.inputs.chosen(recipe.input_names)
        return chosen.processor(chosen.settings(recipe), data.train)

    def fine_tuned(
        self, config: PerceiverIOConfig, processor: Any, recipe: Any, data: Splits
    ) -> tuple[PerceiverIOConfig, Any]:
        """Gives the output as many classes as the data has; what was no classifier loses inputs as the recipe says."""
        tuned, processor = super().fine_tuned(config, processor, recipe, data)
        if not is_of_classes(config):
            packing = {**tuned.packing.to_dict(), **self.packing(recipe)}
            tuned = tuned.replaced(packing=PackingConfig.from_dict(packing))
        return tuned, processor

    def load_processor(self, source: str | Path) -> PerceiverIOProcessor:
        """Loads the processor beside a model."""
        return self.inputs.load_processor(source)

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        """Returns what makes a batch; in training values vary, and labels are smoothed."""
        if not train:
            return super().collator(setup, train=False)
        return partial(
            self._training_batch,
            processor=setup.processor,
            settings=self.inputs.chosen(setup.processor.names).settings(setup.recipe),
            smoothing=setup.recipe.label_smoothing,
            num_classes=len(setup.data.class_names),
            arguments=setup.model.arguments,
        )

    def collate(self, rows: Sequence[Mapping[str, Any]], processor: PerceiverIOProcessor) -> Batch:
        """Makes a batch of rows as they are."""
        batch = self.inputs.batch(rows, processor, arguments=self.model_class.arguments)
        if "label" in rows[0]:
            batch["labels"] = torch.tensor([int(row["label"]) for row in rows])
        return batch

    def read(self, file: str) -> dict[str, Any]:
        """Opens a file; of several inputs, those of a sample: ``image=7.png,audio=7.wav``."""
        return self.inputs.read(file)

    def file_suffixes(self) -> set[str]:
        """Returns the endings of the files of the one input; with several there are none."""
        contents = self.inputs.contents
        return contents[0].suffixes() if len(contents) == 1 else set()

    def row_view(self, model: Any, processor: Any, row: Any, title: str) -> AttentionView:
        """Returns what the latents attend to in a row, over what the model saw of it."""
        view = super().row_view(model, processor, row, title)
        return AttentionView(maps=view.maps, seen=self.inputs.seen(row, processor), title=title)

    def _training_batch(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        processor: PerceiverIOProcessor,
        settings: Settings,
        smoothing: float,
        num_classes: int,
        arguments: Arguments,
    ) -> Batch:
        batch = self.inputs.batch(rows, processor, arguments=arguments, varied=settings)
        labels_B = torch.tensor([int(row["label"]) for row in rows])
        if not smoothing:
            return {**batch, "labels": labels_B}
        one_hot_BK = torch.nn.functional.one_hot(labels_B, num_classes).float()
        return {**batch, "labels": one_hot_BK * (1 - smoothing) + smoothing / num_classes}


def _without(make: Callable[[], Dataset | LabelledRows], left_out: Collection[str]) -> Dataset | LabelledRows:
    """Makes an embedded set without the inputs that are not read."""
    made = make()
    if not left_out or not isinstance(made, LabelledRows):
        return made
    rows = [{name: value for name, value in row.items() if name not in left_out} for row in made.rows]
    return LabelledRows(rows, made.class_names, groups=made.groups)
