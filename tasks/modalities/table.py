"""Rows of tables as tasks see them: numbers and categories by column, any of them missing.

Shape legend: V columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perceiver_io.adapters.table import TableAdapter
from perceiver_io.adapters.table_processor import TableProcessor
from perceiver_io.component import ComponentConfig
from perceiver_io.config_json import json_object
from perceiver_io.data import Content, file_feature
from perceiver_io.media.source import Source, fault_of, unreadable
from perceiver_io.media.texts import read_text
from perceiver_io.pictures.seen import Seen
from perceiver_io.pictures.seen_table import SeenTable
from perceiver_io.tasks.modalities.modality import Modality
from perceiver_io.tasks.modalities.variation import check_fractions

__all__ = ["ROWS", "SMALL", "TableModality", "TableSettings", "columns_of"]

SMALL: dict[str, Any] = {"num_channels": 32, "num_frequencies": 8, "frequency_std": 0.1}
"""Fields of new adapters: few and slow waves, because few rows say nothing of fine detail."""


@dataclass(frozen=True, kw_only=True)
class TableSettings(ComponentConfig):
    """What a recipe says of rows of a table.

    Attributes:
        columns: The columns that are used; all but the label's if None.
        categorical: Columns whose numbers are categories, such as codes.
        cell_dropout: Part of the cells that are hidden in training, as if they were missing.
    """

    columns: tuple[str, ...] | None = None
    categorical: tuple[str, ...] = ()
    cell_dropout: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fractions(self, "cell_dropout")
        if self.columns is not None and not self.columns:
            raise ValueError("TableSettings.columns is empty, expected one column or more.")


def _read(source: Source) -> dict[str, Any]:
    text = read_text(source)
    try:
        return json_object(text, name="a row", may_hold_nan=True)
    except ValueError as error:
        reason = f"no row of a table, expected a JSON object of values by column: {str(error).rstrip('.')}"
        raise unreadable(source, reason) from error


def _decoded(value: Any) -> Any:
    is_file = isinstance(value, Mapping) and set(value) == {"path", "bytes"}
    return _read(value) if is_file else value


class TableModality(Modality):
    """Rows of a table; a file holds one of them, as a JSON object."""

    name = "table"
    Settings = TableSettings
    content = Content(
        column="table",
        noun="rows",
        feature=file_feature,
        suffixes=lambda: {".json"},
        fault=lambda source: fault_of(_read, source),
        decode=_decoded,
        stored=lambda path: {"path": path, "bytes": None},
    )

    def processor(self, settings: TableSettings, values: Iterable[Mapping[str, Any]]) -> TableProcessor:
        """Returns a processor that knows the kind, the scale and the categories of each column of the training rows."""
        return TableProcessor.fitted(values, columns=settings.columns, categorical=settings.categorical)

    def adapter(self, settings: TableSettings, processor: TableProcessor) -> ComponentConfig:
        """Returns the adapter: an element for each column."""
        return TableAdapter.Config(columns=columns_of(processor), **SMALL)

    def varied(self, value: Mapping[str, Any], processor: TableProcessor, settings: TableSettings) -> Tensor:
        """Hides some cells, but never the last."""
        row_V = processor.prepare(value)
        hidden_V = (torch.rand(len(row_V)) < settings.cell_dropout) | row_V.isnan()
        return row_V if hidden_V.all() else row_V.masked_fill(hidden_V, float("nan"))

    def seen(self, value: Mapping[str, Any], sample: Tensor, processor: TableProcessor) -> Seen:
        """Returns the columns with what they hold."""
        values = [
            "missing" if number.isnan() else _shown(value[column])
            for column, number in zip(processor.columns, sample, strict=True)
        ]
        return SeenTable(names=processor.columns, values=values)


ROWS = TableModality()


def columns_of(processor: TableProcessor) -> Any:
    """Returns what the adapter is told of the columns: the processor has standardised the numbers."""
    return tuple(("category", count) if count else ("number", 0.0, 1.0) for count in processor.num_categories)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
