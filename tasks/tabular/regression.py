"""The task that gives a number for a row of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perceiver_io.adapters.table_processor import TableProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.pictures.attention_view import AttentionView
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.registry import register_task
from perceiver_io.running import DatasetRecipe, Setup
from perceiver_io.running.task import Batch, Collate
from perceiver_io.tasks.classification.presets import ENCODERS
from perceiver_io.tasks.modalities.modality import settings_section
from perceiver_io.tasks.modalities.table import ROWS, columns_of
from perceiver_io.tasks.regression import RegressionTask
from perceiver_io.tasks.tabular.data import REGRESSION_SETS, read_numbers
from perceiver_io.tasks.tabular.files import TableFiles, chosen_columns
from perceiver_io.tasks.tabular.presets import INPUTS, VALUE, regression_config

__all__ = ["TabularRegressionTask"]


@dataclass(kw_only=True)
class TabularRegressionRecipe(DatasetRecipe):
    """What a regression of rows is trained on, and how.

    Raises:
        ValueError: A value is out of its range.
    """

    embedded = tuple(REGRESSION_SETS)

    variant: str = field(
        default="nano", metadata={"help": f"Size of the model, one of {', '.join(ENCODERS)}."}
    )
    table: dict[str, Any] = settings_section(ROWS, "the columns")
    num_epochs: int = 60
    batch_size: int = 32
    weight_decay: float = 0.2
    num_threads: int | None = 1
    best_metric: str = "none"

    def __post_init__(self) -> None:
        """Checks all values, those of the section too."""
        super().__post_init__()
        if self.variant not in ENCODERS:
            raise ValueError(f"variant is {self.variant!r:.80}, expected one of {', '.join(ENCODERS)}.")
        INPUTS.settings(self)


@register_task("tabular-regression")
class TabularRegressionTask(TableFiles, RegressionTask):
    """Trains and applies a `PerceiverIOForRegression` of the columns of a table."""

    recipe_class = TabularRegressionRecipe

    def data(self, recipe: TabularRegressionRecipe) -> Splits:
        """Reads a table whose label is a number."""
        table = INPUTS.settings(recipe)[ROWS.name]
        return read_numbers(recipe, table, embedded=REGRESSION_SETS, seed=recipe.seed)

    def config(self, recipe: TabularRegressionRecipe, data: Splits) -> PerceiverIOConfig:
        """Returns the preset's configuration, with the recipe's settings."""
        return self.fresh(recipe, data)[0]

    def fresh(
        self, recipe: TabularRegressionRecipe, data: Splits
    ) -> tuple[PerceiverIOConfig, PerceiverIOProcessor]:
        """Returns the preset's configuration; the number's mean and deviation are those of the training rows."""
        changes = recipe.model_settings
        numbers = np.array([row["label"] for row in data.train])
        processor = self.processor(recipe, data)
        of_rows = processor.processors[ROWS.name]
        assert isinstance(of_rows, TableProcessor)
        config = regression_config(
            columns=columns_of(of_rows),
            offset=float(numbers.mean()),
            scale=float(numbers.std()) or 1.0,
            variant=recipe.variant,
            table=changes.input(ROWS.name),
            encoder=changes.encoder,
            decoder=changes.output(VALUE),
        )
        return config, processor

    def processor(self, recipe: TabularRegressionRecipe, data: Splits) -> PerceiverIOProcessor:
        """Returns the processor of a new model, which knows the columns of the training rows."""
        return INPUTS.processor(INPUTS.settings(recipe), data.train)

    def load_processor(self, source: str | Path) -> PerceiverIOProcessor:
        """Loads the processor beside a model."""
        return INPUTS.load_processor(source)

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        """Returns what makes a batch; in training some cells are hidden."""
        settings = INPUTS.settings(setup.recipe) if train else None
        return partial(self._batch, processor=setup.processor, varied=settings)

    def collate(self, rows: Sequence[Mapping[str, Any]], processor: PerceiverIOProcessor) -> Batch:
        """Makes a batch of rows, of which other columns than the model's are left out."""
        return self._batch(rows, processor=processor)

    def row_view(self, model: Any, processor: Any, row: Any, title: str) -> AttentionView:
        """Returns what the latents attend to in a row, column by column."""
        view = super().row_view(model, processor, row, title)
        seen = INPUTS.seen(chosen_columns([row], processor)[0], processor)
        return AttentionView(maps=view.maps, seen=seen, title=title)

    def _batch(
        self, rows: Sequence[Mapping[str, Any]], *, processor: PerceiverIOProcessor, varied: Any = None
    ) -> Batch:
        chosen = chosen_columns(rows, processor)
        batch = INPUTS.batch(chosen, processor, arguments={}, varied=varied)
        if "label" in rows[0]:
            batch["labels"] = torch.tensor([row["label"] for row in rows], dtype=torch.float32)
        return batch
