"""Time series: what several channels measured at irregular times, beside Fourier features of the time.

Shape legend: B batch, T times, V variables; M = T elements.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

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
)
from perceiver_io.position import FourierPositionEncoding
from perceiver_io.registry import register_adapter

__all__ = ["TimeSeriesAdapter"]


@register_adapter("time-series")
class TimeSeriesAdapter(InputAdapter):
    """Takes series (B, T, 1 + V): the time, which may be irregular, and V variables, NaN where not measured.

    A mask is (B, T), True where a time is real. A time at which all is NaN, the time too, is masked as well.

    Args:
        config: The settings.
    """

    takes_nan = True

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the adapter.

        Attributes:
            num_variables: V.
            time_range: The times that become -1 and 1. Series may go on before and after them.
            num_bands: Frequencies of the Fourier positions.
            max_resolution: How many times the range holds that can be told apart: its Nyquist frequency is the highest
                band; if None, twice `num_bands`, which makes the frequencies whole numbers.
        """

        num_variables: int
        time_range: tuple[float, float]
        num_bands: int = 32
        max_resolution: int | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(self, "num_variables", "num_bands", "max_resolution")
            if self.time_range[0] >= self.time_range[1]:
                raise ValueError(
                    f"{type(self).__qualname__}.time_range must be the first and a later time, got {self.time_range}."
                )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.position = FourierPositionEncoding(
            num_bands=config.num_bands, max_resolution=(config.max_resolution or 2 * config.num_bands,)
        )
        self.num_content_channels = 2 * config.num_variables
        self.num_channels = self.num_content_channels + self.position.num_channels
        self.num_target_channels = config.num_variables

    def forward(self, x: Tensor, mask: Tensor | None = None) -> ByteArray:
        """Takes a batch of series.

        Args:
            x: (B, T, 1 + V) floating-point series, the time first.
            mask: (B, T) bool, True where a time is real.

        Returns:
            The byte array, with the variables first, 0 where not measured, 1 or 0 for what was and was not, then
            the position.

        Raises:
            ValueError: The rank, channels or type does not fit, the batch is empty, a value is infinite, or a time is
                NaN at which something was measured.
        """
        self._check(x, mask)
        measured_BTV = ~x[..., 1:].isnan()
        real_BT = ~x[..., 0].isnan() | measured_BTV.any(dim=-1)
        if mask is not None:
            real_BT = real_BT & mask
        time_BT = torch.where(real_BT, x[..., 0], self.config.time_range[0])
        check_finite(
            time_BT,
            name="The times of the batch",
            advice="Mask what has no time.",
            largest=sys.float_info.max,
        )
        measured_BTV = measured_BTV & real_BT[..., None]
        values_BTV = torch.where(measured_BTV, x[..., 1:], 0)
        check_finite(
            values_BTV, name="The batch of time series", advice="What was not measured is NaN, not infinite."
        )
        first, last = self.config.time_range
        time_BT = time_BT.to(torch.promote_types(x.dtype, torch.float32))
        scaled_BT1 = ((time_BT - first) / (last - first) * 2 - 1)[..., None]
        check_finite(
            scaled_BT1.to(x.dtype), name="The batch of scaled times", advice="The time_range is too short."
        )
        content_BTC = torch.cat([values_BTV, measured_BTV.to(x.dtype)], dim=-1)
        return ByteArray(
            values=beside(content_BTC, self.position.at_coordinates(scaled_BT1, like=x)),
            mask=real_BT,
            grid=(x.shape[1],),
            num_content_channels=self.num_content_channels,
        )

    def targets(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the variables at each time, NaN where not measured.

        Args:
            x: As `forward`.
            mask: As `forward`.

        Raises:
            ValueError: As `forward`.
        """
        self._check(x, mask)
        return x[..., 1:] if mask is None else torch.where(mask[..., None], x[..., 1:], torch.nan)

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        check_shape(
            x,
            ("batch", "times", 1 + self.config.num_variables),
            name="Time series",
            advice="The time comes first, then the variables.",
        )
        check_floating(x, name="Time series", advice="Call `.float()` on them.")
        check_mask(mask, x.shape[:2], x=x, name="time series")
