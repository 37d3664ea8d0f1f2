"""The task that names the class of a row of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perceiver_io.data import Splits
from perceiver_io.pictures.attention_view import AttentionView
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.registry import register_task
from perceiver_io.running.task import Batch
from perceiver_io.tasks.classification.modal_task import ModalClassificationTask, ModalRecipe
from perceiver_io.tasks.modalities.modality import settings_section
from perceiver_io.tasks.modalities.table import ROWS
from perceiver_io.tasks.tabular.data import CLASSIFICATION_SETS, read_classes
from perceiver_io.tasks.tabular.files import TableFiles, chosen_columns
from perceiver_io.tasks.tabular.presets import INPUTS

__all__ = ["TabularClassificationTask"]


@dataclass(kw_only=True)
class TabularClassificationRecipe(ModalRecipe):
    """What a classifier of rows is trained on, and how."""

    embedded = tuple(CLASSIFICATION_SETS)
    inputs_of_task = INPUTS

    table: dict[str, Any] = settings_section(ROWS, "the columns")
    variant: str = "nano"
    num_epochs: int = 60
    batch_size: int = 32
    weight_decay: float = 0.2
    num_threads: int | None = 1
    best_metric: str = "none"


@register_task("tabular-classification")
class TabularClassificationTask(TableFiles, ModalClassificationTask):
    """Trains and applies a `PerceiverIOForClassification` of the columns of a table."""

    recipe_class = TabularClassificationRecipe
    inputs = INPUTS

    def data(self, recipe: TabularClassificationRecipe) -> Splits:
        """Reads a table whose label is a class."""
        table = self.inputs.settings(recipe)[ROWS.name]
        return read_classes(recipe, table, embedded=CLASSIFICATION_SETS, seed=recipe.seed)

    def collate(self, rows: Sequence[Mapping[str, Any]], processor: PerceiverIOProcessor) -> Batch:
        """Makes a batch of rows, of which other columns than the model's are left out."""
        return super().collate(chosen_columns(rows, processor), processor)

    def row_view(self, model: Any, processor: Any, row: Any, title: str) -> AttentionView:
        """Returns what the latents attend to in a row, column by column."""
        return super().row_view(model, processor, chosen_columns([row], processor)[0], title)

    def _training_batch(
        self, rows: Sequence[Mapping[str, Any]], *, processor: PerceiverIOProcessor, **rest: Any
    ) -> Batch:
        return super()._training_batch(chosen_columns(rows, processor), processor=processor, **rest)
