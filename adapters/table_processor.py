"""Rows of tables to numbers: each column's kind, its names of categories, and the scale of its numbers.

Shape legend: B batch, V columns.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import LARGEST_INPUT
from perceiver_io.printable import listing, printable
from perceiver_io.registry import register_processor

__all__ = ["TableProcessor", "is_missing"]


@register_processor("table")
@dataclass(frozen=True, kw_only=True)
class TableProcessor(ComponentConfig):
    """Turns a row, a mapping of values by column, into one number for each column.

    Numbers are standardised: their mean is subtracted, and they are divided by their scale. Categories become their
    place among the column's names. What is missing becomes NaN: None, NaN, an empty text, a column that a row lacks.
    A category is named by its text; True, 1 and 1.0 are "True", "1" and "1".

    `fitted` finds the settings in rows.

    Attributes:
        columns: The names of the columns.
        categories: The names of each column's categories; None for a column of numbers.
        means: What is subtracted from each column's numbers; 0 for categories.
        scales: What they are divided by; 1 for categories.
        unknown: What a category without a place is: "missing", or an "error".
    """

    columns: tuple[str, ...]
    categories: tuple[tuple[str, ...] | None, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    unknown: Literal["missing", "error"] = "missing"

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {len(self.columns), len(self.categories), len(self.means), len(self.scales)}
        if sizes != {len(set(self.columns))} or not self.columns:
            raise ValueError(
                f"A table has one or more columns of different names, with categories, a mean and a scale each: got "
                f"{len(self.columns)} columns ({len(set(self.columns))} names), {len(self.categories)}, "
                f"{len(self.means)} and {len(self.scales)}."
            )
        for column, names in zip(self.columns, self.categories, strict=True):
            if names is not None and (not names or len(set(names)) != len(names)):
                raise ValueError(
                    f"The column {column!r} has the categories {list(names)}, expected one or more, each once."
                )
        if min(self.scales) <= 0:
            raise ValueError(f"The scales of a table must be above zero, got {list(self.scales)}.")

    @classmethod
    def fitted(
        cls,
        rows: Iterable[Mapping[str, Any]],
        *,
        columns: Sequence[str] | None = None,
        categorical: Collection[str] = (),
        max_categories: int = 1000,
        unknown: Literal["missing", "error"] = "missing",
    ) -> TableProcessor:
        """Makes a processor of training rows.

        A column is one of numbers if all that it holds are, or are texts that can be read as numbers. True and False
        are categories, as are all other texts. Categories are in the order of their numbers, or else of their names.

        Args:
            rows: The rows.
            columns: The columns that are used; all that a row has if None, in the order in which they appear.
            categorical: Columns whose numbers are categories, such as codes.
            max_categories: The most categories that a column may have.
            unknown: As the setting.

        Raises:
            ValueError: There are no rows, a column is not there, holds nothing, infinities, or too many categories.
        """
        values: dict[str, list[Any]] = {column: [] for column in columns or ()}
        for row in rows:
            for column, value in row.items():
                if columns is None or column in values:
                    present = values.setdefault(column, [])
                    if not is_missing(value):
                        present.append(value)
        if not values:
            raise ValueError("There are no rows to fit a table to, or they have no columns.")
        if absent := sorted({*categorical} - values.keys()):
            raise ValueError(
                f"The columns {absent} are said to be categorical, but the table has {listing(values)}."
            )
        if empty := [column for column, present in values.items() if not present]:
            raise ValueError(
                f"The columns {listing(empty)} hold nothing in any row. Leave them out of `columns`."
            )
        categories: list[tuple[str, ...] | None] = []
        means, scales = [], []
        for column, present in values.items():
            numbers = None if column in categorical else _numbers(present)
            if numbers is None:
                names = {_category(value) for value in present}
                if len(names) > max_categories:
                    raise ValueError(
                        f"The column {column!r} has {len(names)} different texts, expected at most {max_categories}. "
                        "Leave it out of `columns`, or raise max_categories."
                    )
                categories.append(tuple(sorted(names, key=_order)))
                means.append(0.0)
                scales.append(1.0)
            else:
                with np.errstate(over="ignore", invalid="ignore"):
                    mean, scale = float(numbers.mean()), float(numbers.std())
                if not math.isfinite(mean + scale):
                    raise ValueError(
                        f"The column {column!r:.200} holds infinities, or numbers too large for a deviation. Make them "
                        "None, or leave the rows out."
                    )
                categories.append(None)
                means.append(mean)
                # A column whose numbers are all one is left with 0.
                scales.append(scale or 1.0)
        return cls(
            columns=tuple(values),
            categories=tuple(categories),
            means=tuple(means),
            scales=tuple(scales),
            unknown=unknown,
        )

    @property
    def num_categories(self) -> tuple[int, ...]:
        """How many categories each column has; 0 for numbers."""
        return tuple(len(names or ()) for names in self.categories)

    def prepare(self, value: Mapping[str, Any]) -> Tensor:
        """Returns one row.

        Args:
            value: Values by column.

        Returns:
            (V,) float32.

        Raises:
            ValueError: It is no row, has columns that are not known or none that holds something, or a value that is no
                number where one should be, infinite, or an unknown category if that is an error.
        """
        if not isinstance(value, Mapping):
            raise ValueError(f"Got {type(value).__name__}, expected a row: a mapping of values by column.")
        if unknown := sorted(set(value) - set(self.columns)):
            raise ValueError(
                f"The row has the columns {listing(unknown)}, expected some of {listing(self.columns)}."
            )
        row = torch.tensor(
            [self._number(index, value.get(column)) for index, column in enumerate(self.columns)]
        )
        if row.isnan().all():
            raise ValueError(
                f"The row holds nothing in any of the columns {listing(self.columns)}. Leave it out."
            )
        return row

    def collate(self, samples: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """Makes a batch (B, V) of rows, with NaN where something is missing, and its mask (B, V)."""
        if all(sample is None for sample in samples):
            raise ValueError("None of the samples of the batch has this input: leave the input out.")
        missing = torch.full((len(self.columns),), math.nan)
        batch = torch.stack([missing if sample is None else sample for sample in samples])
        mask = ~batch.isnan()
        return batch, None if mask.all() else mask

    def _number(self, index: int, value: Any) -> float:
        column, names = self.columns[index], self.categories[index]
        if is_missing(value):
            return math.nan
        if names is not None:
            name = _category(value)
            if name in names:
                return float(names.index(name))
            if self.unknown == "missing":
                return math.nan
            raise ValueError(
                f"{name!r:.200} in the column {column!r:.200} is no known category: {printable(_listed(names))}."
            )
        numbers = _numbers([value])
        if numbers is None or not math.isfinite(numbers[0]):
            raise ValueError(f"The column {column!r} holds {value!r:.100}, expected a number, or None.")
        standardised = float((numbers[0] - self.means[index]) / self.scales[index])
        if not abs(standardised) <= LARGEST_INPUT:
            raise ValueError(
                f"The column {column!r:.200} holds {value!r:.100}, which is too far from its mean "
                f"{self.means[index]:g}."
            )
        return standardised


def is_missing(value: Any) -> bool:
    """Returns whether a cell holds nothing: None, NaN or an empty text."""
    if isinstance(value, Real):
        return bool(value != value)  # an integer may be larger than any float
    return value is None or (isinstance(value, str) and not value)


def _numbers(values: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Returns values as numbers; None if one is none."""
    if any(isinstance(value, (bool, np.bool_)) or not isinstance(value, (str, Real)) for value in values):
        return None
    try:
        return np.array([float(value) for value in values])
    except (ValueError, OverflowError):  # it may have a thousand digits
        return None


def _category(value: Any) -> str:
    number = None if isinstance(value, str) else _numbers([value])
    return str(int(number[0])) if number is not None and number[0].is_integer() else str(value)


def _order(name: str) -> tuple[bool, float, str]:
    numbers = _numbers([name])
    return (numbers is None, 0.0 if numbers is None else float(numbers[0]), name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"{name:.100}" for name in names[:10]) + (
        f" and {len(names) - 10} more" if len(names) > 10 else ""
    )
