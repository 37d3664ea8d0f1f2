"""Tables: one element a column, numbers and categories, what is missing masked.

Shape legend: B batch, V columns, N columns of numbers, G columns of categories, E content channels, K frequencies;
M = V elements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from perceiver_io.adapter import InputAdapter
from perceiver_io.byte_array import ByteArray
from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import (
    beside,
    check_finite,
    check_floating,
    check_mask,
    check_positive,
    check_shape,
    listed,
)
from perceiver_io.layers import LearnedArray
from perceiver_io.registry import register_adapter
from perceiver_io.value_checks import looks_at

__all__ = ["TableAdapter"]

_ROUNDING = 1e-3  # how far from a whole number a category may be


@register_adapter("table")
class TableAdapter(InputAdapter):
    """Makes an element of each column of a row (B, V): its value, beside a learned vector that says which column it is.

    Numbers are standardised and shown as a learned vector times the number and as sines and cosines of learned
    frequencies (Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep Learning"), categories as
    rows of a table. NaN is what is missing: its element is masked. So is what a mask (B, V) is False for.

    Args:
        config: The settings.
    """

    takes_nan = True

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the adapter.

        Attributes:
            columns: What each column is: ("number", mean, scale), where scale is the standard deviation, or
                ("category", count), whose values are whole numbers from 0 to count - 1.
            num_channels: E.
            position_channels: Width of the vector that says which column it is.
            num_frequencies: K, for each column of numbers.
            frequency_std: Standard deviation with which frequencies start, in periods per standard deviation of the
                numbers. More lets the model tell apart numbers that are closer.
        """

        columns: tuple[tuple[Literal["number"], float, float] | tuple[Literal["category"], int], ...]
        num_channels: int = 64
        position_channels: int = 32
        num_frequencies: int = 16
        frequency_std: float = 0.3

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(self, "num_channels", "position_channels", "num_frequencies")
            name = type(self).__qualname__
            if not self.columns:
                raise ValueError(f"{name}.columns must name at least one column, got none.")
            if self.frequency_std <= 0:
                raise ValueError(f"{name}.frequency_std must be above 0, got {self.frequency_std}.")
            for index, column in enumerate(self.columns):
                if column[0] == "number" and column[2] <= 0:
                    raise ValueError(
                        f"{name}.columns[{index}] must have a scale above 0, got {column}. Take 1 for a column that is "
                        "constant."
                    )
                if column[0] == "category" and column[1] < 1:
                    raise ValueError(
                        f"{name}.columns[{index}] must have at least one category, got {column}."
                    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.num_elements = len(config.columns)
        self.num_content_channels = config.num_channels
        self.num_channels = config.num_channels + config.position_channels
        numbers = [
            (index, column[1:]) for index, column in enumerate(config.columns) if column[0] == "number"
        ]
        categories = [
            (index, int(column[1])) for index, column in enumerate(config.columns) if column[0] == "category"
        ]
        self.number_columns = [index for index, _ in numbers]
        self.category_columns = [index for index, _ in categories]
        self.numbers = self.categories = None
        if numbers:
            self.numbers = NumberEmbedding(
                [(float(mean), float(scale)) for _, (mean, scale) in numbers],
                num_channels=config.num_channels,
                num_frequencies=config.num_frequencies,
                frequency_std=config.frequency_std,
            )
        if categories:
            self.categories = CategoryEmbedding(
                [count for _, count in categories], num_channels=config.num_channels
            )
        # A number, then a 1 for the category that it is and a 0 for each other one; NaN where a column has no such.
        self.num_target_channels = 1 + max((count for _, count in categories), default=0)
        self.position = LearnedArray(len(config.columns), config.position_channels, std=1.0)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> ByteArray:
        """Makes elements of a batch of rows.

        Args:
            x: (B, V) floating-point values, categories as whole numbers, NaN where missing.
            mask: (B, V) bool, True where a value is real.

        Returns:
            The byte array. What is missing is masked, and its content zero.

        Raises:
            ValueError: The rank, columns or type does not fit, the batch is empty, a value is infinite, or a category
                is not known.
        """
        num_columns = len(self.config.columns)
        self._check(x, mask)
        real_BV = ~x.isnan()
        if mask is not None:
            real_BV = real_BV & mask
        x_BV = torch.where(real_BV, x, 0)
        check_finite(x_BV, name="The batch of rows", advice="What is missing is NaN, not infinite.")
        parts = []
        if self.numbers is not None:
            columns = self.number_columns
            parts.append(self.numbers(x_BV[:, columns], real_BV[:, columns]))
        if self.categories is not None:
            x_BG = x_BV[:, self.category_columns]
            self._check_categories(x_BG)
            parts.append(self.categories(x_BG.round().long()))
        places = [*self.number_columns, *self.category_columns]
        order = [places.index(column) for column in range(num_columns)]
        content_BVE = torch.cat(parts, dim=1)[:, order]
        content_BVE = torch.where(real_BV[..., None], content_BVE, 0)
        return ByteArray(
            values=beside(content_BVE, self.position().to(content_BVE.dtype)),
            mask=real_BV,
            grid=(num_columns,),
            num_content_channels=self.num_content_channels,
        )

    def targets(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns each column's value: a standardised number, or 1 for the category that it is and 0 for the others.

        Args:
            x: As `forward`.
            mask: As `forward`.

        Returns:
            (B, V, 1 + the most categories), NaN where something is missing, or a column has no such value.

        Raises:
            ValueError: As `forward`.
        """
        self._check(x, mask)
        if mask is not None:
            x = torch.where(mask, x, torch.nan)
        self._check_categories(x[:, self.category_columns].nan_to_num())
        found = x.new_full((*x.shape, self.num_target_channels or 1), torch.nan)
        for index, column in enumerate(self.config.columns):
            if column[0] == "number":
                found[:, index, 0] = (x[:, index] - column[1]) / column[2]
            else:
                places_K = torch.arange(column[1], device=x.device)
                one_hot_BK = (x[:, index, None].round() == places_K).to(x.dtype)
                is_missing_B1 = x[:, index, None].isnan()
                found[:, index, 1 : 1 + column[1]] = torch.where(is_missing_B1, torch.nan, one_hot_BK)
        return found

    def from_targets(self, targets_BMV: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Returns the rows (B, V) that have these targets: numbers in their units, the most probable categories."""
        columns = [
            targets_BMV[:, index, 0] * column[2] + column[1]
            if column[0] == "number"
            else targets_BMV[:, index, 1 : 1 + column[1]].argmax(-1).to(targets_BMV.dtype)
            for index, column in enumerate(self.config.columns)
        ]
        return torch.stack(columns, dim=1)

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        num_columns = len(self.config.columns)
        check_shape(x, ("batch", num_columns), name="Rows", advice="Give one row a batch axis: row[None].")
        check_floating(
            x,
            name="Rows",
            advice="Categories are whole numbers of the same type as the numbers: call `.float()`.",
        )
        check_mask(mask, x.shape, x=x, name="rows")

    def _check_categories(self, x_BG: Tensor) -> None:
        if not looks_at(x_BG):
            return
        for place, column in enumerate(self.category_columns):
            count, x_B = self.config.columns[column][1], x_BG[:, place]
            wrong_B = ((x_B - x_B.round()).abs() > _ROUNDING) | (x_B.round() < 0) | (x_B.round() >= count)
            if wrong_B.any():
                found = listed(x_B[wrong_B].unique().tolist())
                raise ValueError(
                    f"Column {column} of the rows must hold whole numbers from 0 to {count - 1}, got {found}. Make NaN "
                    "of categories that are not known, which says that they are missing."
                )


class NumberEmbedding(nn.Module):
    """Vectors of numbers: a vector times the number, plus a mix of sines and cosines, for each column its own.

    Args:
        columns: Mean and scale of each column.
        num_channels: E.
        num_frequencies: K.
        frequency_std: Standard deviation with which frequencies start.
    """

    def __init__(
        self,
        columns: list[tuple[float, float]],
        *,
        num_channels: int,
        num_frequencies: int,
        frequency_std: float,
    ) -> None:
        super().__init__()
        self.means = [mean for mean, _ in columns]
        self.scales = [scale for _, scale in columns]
        count = len(columns)
        # Both parts start with half of the variance, for numbers that are standardised.
        self.slope = LearnedArray(count, num_channels, std=math.sqrt(0.5))
        self.bias = LearnedArray(count, num_channels)
        self.frequencies = LearnedArray(count, num_frequencies, std=frequency_std)
        self.mix = LearnedArray(
            count, 2 * num_frequencies * num_channels, std=math.sqrt(0.5 / num_frequencies)
        )

    def forward(self, x_BN: Tensor, real_BN: Tensor) -> Tensor:
        """Returns (B, N, E).

        Args:
            x_BN: The numbers.
            real_BN: Bool; what is not real counts as the mean.
        """
        # Standardised in float32 at least: a year of four digits is not one in half precision.
        wide_BN = x_BN.to(torch.promote_types(x_BN.dtype, torch.float32))
        slope_NE = self.slope()
        means_N, scales_N = (
            torch.tensor(one, dtype=wide_BN.dtype, device=wide_BN.device) for one in (self.means, self.scales)
        )
        z_BN = torch.where(real_BN, (wide_BN - means_N) / scales_N, 0)
        content_BN1 = z_BN.to(slope_NE.dtype)[..., None]
        check_finite(content_BN1, name="The batch of standardised numbers", advice="A scale is too small.")
        phases_BNK = 2 * math.pi * z_BN[..., None] * self.frequencies()
        waves_BNW = torch.cat([phases_BNK.sin(), phases_BNK.cos()], dim=-1).to(slope_NE.dtype)
        mix_NWE = self.mix().unflatten(1, (-1, slope_NE.shape[1]))
        mixed_BNE = torch.einsum("bnw,nwe->bne", waves_BNW, mix_NWE)
        return content_BN1 * slope_NE + self.bias() + mixed_BNE


class CategoryEmbedding(nn.Module):
    """Vectors of categories, for each column its own.

    Args:
        counts: Categories of each column.
        num_channels: E.
    """

    def __init__(self, counts: list[int], *, num_channels: int) -> None:
        super().__init__()
        self.starts = [sum(counts[:place]) for place in range(len(counts))]
        self.rows = LearnedArray(sum(counts), num_channels, std=1.0)

    def forward(self, indices_BG: Tensor) -> Tensor:
        """Returns (B, G, E)."""
        starts_G = torch.tensor(self.starts, device=indices_BG.device)
        return nn.functional.embedding(indices_BG + starts_G, self.rows())
