"""Feature vectors: sequences or sets of what another model, or whoever, has made.

Shape legend: B batch, M elements, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
from perceiver_io.position import FourierPositionEncoding, LearnedPositionEncoding
from perceiver_io.registry import register_adapter

__all__ = ["FeaturesAdapter"]


@register_adapter("features")
class FeaturesAdapter(InputAdapter):
    """Takes feature vectors (B, M, C) as they are, with or without positions in their sequence.

    A mask is (B, M), True where a vector is real; masked ones are set to zero.

    Args:
        config: The settings.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the adapter.

        Attributes:
            num_features: C.
            position: "none" makes them a set; "fourier" and "learned" put positions beside them.
            max_length: How many vectors -1 to 1 covers, or how many learned positions there are. Longer sequences go on
                past 1 with "fourier", and are refused with "learned".
            num_bands: Frequencies of Fourier positions.
            position_channels: Width of learned positions.
        """

        num_features: int
        position: Literal["none", "fourier", "learned"] = "none"
        max_length: int = 512
        num_bands: int = 32
        position_channels: int = 64

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(self, "num_features", "max_length", "num_bands", "position_channels")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        length = (config.max_length,)
        self.position: FourierPositionEncoding | LearnedPositionEncoding | None = None
        if config.position == "fourier":
            self.position = FourierPositionEncoding(
                num_bands=config.num_bands, max_resolution=length, nominal_grid=length
            )
        elif config.position == "learned":
            self.position = LearnedPositionEncoding(
                grid=length, num_channels=config.position_channels, resize="truncate"
            )
        self.num_content_channels = config.num_features
        position_channels = 0 if self.position is None else self.position.num_channels
        self.num_channels = config.num_features + position_channels
        self.num_target_channels = config.num_features

    def forward(self, x: Tensor, mask: Tensor | None = None) -> ByteArray:
        """Takes a batch of feature vectors.

        Args:
            x: (B, M, C) floating-point vectors.
            mask: (B, M) bool, True where a vector is real.

        Returns:
            The byte array, with the vectors first, then their positions, if any.

        Raises:
            ValueError: The rank, channels or type does not fit, the batch is empty, there are more vectors than learned
                positions, or a real value is NaN.
        """
        self._check(x, mask)
        if mask is not None:
            x = torch.where(mask[..., None], x, 0)
        check_finite(x, name="The batch of features")
        values_BMC = x
        if self.position is not None:
            values_BMC = beside(x, self.position((x.shape[1],), like=x))
        return ByteArray(
            values=values_BMC,
            mask=mask,
            grid=None if self.position is None else (x.shape[1],),
            num_content_channels=self.num_content_channels,
        )

    def targets(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the vectors.

        Args:
            x: As `forward`.
            mask: As `forward`.

        Raises:
            ValueError: As `forward`.
        """
        self._check(x, mask)
        return x if mask is None else torch.where(mask[..., None], x, torch.nan)

    def from_targets(self, targets_BMV: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Returns the vectors (B, M, C) that have these targets."""
        return targets_BMV

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        check_shape(
            x,
            ("batch", "elements", self.config.num_features),
            name="Features",
            advice="Give one vector a sample an axis of elements: x[:, None].",
        )
        check_floating(x, name="Features", advice="Call `.float()` on them.")
        check_mask(mask, x.shape[:2], x=x, name="features")
