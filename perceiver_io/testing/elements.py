"""The plainest adapter there is, for tests that need some input and care little which.

Shape legend: B batch, M elements, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver_io.adapter import InputAdapter
from perceiver_io.byte_array import ByteArray
from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import check_finite

__all__ = ["ElementsAdapter"]


class ElementsAdapter(InputAdapter):
    """Takes (B, M, C) elements as they are, with a mask (B, M). Not registered: pass it as `adapters=`.

    Args:
        config: The settings.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the adapter.

        Attributes:
            num_channels: C.
            num_content_channels: The first so many channels count as content; all if None.
        """

        num_channels: int
        num_content_channels: int | None = None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_channels = config.num_channels
        content = config.num_content_channels
        self.num_content_channels = config.num_channels if content is None else content

    def forward(self, x: Tensor, mask: Tensor | None = None) -> ByteArray:
        """Wraps a batch of elements.

        Args:
            x: (B, M, C) floating-point elements.
            mask: (B, M) bool, True where an element is real.

        Raises:
            ValueError: The shape or type does not fit, the batch is empty, or a real element is not finite.
        """
        if x.ndim != 3 or x.shape[2] != self.num_channels or 0 in x.shape or not x.is_floating_point():
            raise ValueError(
                f"Elements must be floating point (batch, elements, {self.num_channels}), none of them 0, got "
                f"{x.dtype} {tuple(x.shape)}."
            )
        if mask is not None:
            if mask.shape != x.shape[:2] or mask.dtype != torch.bool:
                raise ValueError(
                    f"The mask must be bool {tuple(x.shape[:2])}, got {mask.dtype} {tuple(mask.shape)}."
                )
            x = torch.where(mask.unsqueeze(-1), x, 0)
        check_finite(x, name="The batch of elements")
        return ByteArray(values=x, mask=mask, num_content_channels=self.num_content_channels)
