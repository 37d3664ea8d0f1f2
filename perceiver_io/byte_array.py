"""The byte array: what every modality becomes before the encoder sees it.

Shape legend: B batch, M elements, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perceiver_io.layers import LearnedArray

__all__ = ["ByteArray", "ByteArrayPacker", "Segment"]


@dataclass(frozen=True, kw_only=True)
class ByteArray:
    """M elements of C channels, content beside position (Perceiver, section 3.1).

    Attributes:
        values: (B, M, C) floating-point elements.
        mask: (B, M) bool, True where an element is real; None when all are.
        grid: Index shape whose product is M, in row-major order; None for unordered sets.
        num_content_channels: The first so many channels are content, the others are position. Where a position
            is added to the content instead of put beside it, all channels count as content.

    Raises:
        ValueError: The parts do not fit together.
    """

    values: Tensor
    mask: Tensor | None = None
    grid: tuple[int, ...] | None = None
    num_content_channels: int

    def __post_init__(self) -> None:
        if self.values.ndim != 3:
            raise ValueError(
                f"A byte array's values must be (B, M, C), got the shape {tuple(self.values.shape)}."
            )
        batch_size, num_elements, num_channels = self.values.shape
        if self.mask is not None and self.mask.shape != (batch_size, num_elements):
            raise ValueError(
                f"A byte array's mask must be {(batch_size, num_elements)} (B, M), got {tuple(self.mask.shape)}."
            )
        if self.mask is not None and self.mask.dtype != torch.bool:
            raise ValueError(
                f"A byte array's mask must be bool (True = a real element), got {self.mask.dtype}."
            )
        if self.grid is not None and math.prod(self.grid) != num_elements:
            raise ValueError(
                f"The grid {self.grid} has {math.prod(self.grid)} elements, the values {num_elements}."
            )
        if not 0 <= self.num_content_channels <= num_channels:
            raise ValueError(
                f"num_content_channels must be between 0 and {num_channels}, got {self.num_content_channels}."
            )


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Where one input lies in the packed byte array: elements ``start`` to ``start + length``."""

    start: int
    length: int
    grid: tuple[int, ...] | None
    num_content_channels: int


class ByteArrayPacker(nn.Module):
    """Joins the byte arrays of several inputs into one (Perceiver IO, appendix on multimodal autoencoding).

    Each input is widened to the widest by a learned padding of its own, which also tells the inputs apart. One
    input alone is passed on as it is. Inputs are packed in alphabetical order of their names; an input that a
    batch lacks is left out, which is the same as masking all of its elements.

    Args:
        num_channels: Width of each input's byte array, by name.
        min_padding: The packed width is the widest input's plus so many channels, so that every input gets at
            least so many channels of its own.
    """

    def __init__(self, num_channels: Mapping[str, int], *, min_padding: int = 1) -> None:
        super().__init__()
        if not num_channels:
            raise ValueError("A model needs at least one input, got none.")
        self.names = tuple(sorted(num_channels))
        alone = len(self.names) == 1
        self.num_channels = max(num_channels.values()) + (0 if alone else min_padding)
        self.padding = nn.ModuleDict()
        if not alone:
            for name in self.names:
                self.padding[name] = LearnedArray(1, self.num_channels - num_channels[name])

    def forward(self, byte_arrays: Mapping[str, ByteArray]) -> tuple[ByteArray, dict[str, Segment]]:
        """Packs the byte arrays.

        Args:
            byte_arrays: One byte array for each input that the batch has.

        Returns:
            The packed byte array, and where each input lies in it.
        """
        present = [name for name in self.names if name in byte_arrays]
        segments: dict[str, Segment] = {}
        start = 0
        for name in present:
            part = byte_arrays[name]
            segments[name] = Segment(
                start=start,
                length=part.values.shape[1],
                grid=part.grid,
                num_content_channels=part.num_content_channels,
            )
            start += part.values.shape[1]
        if len(self.names) == 1:
            return byte_arrays[present[0]], segments

        parts = [byte_arrays[name] for name in present]
        values_BMC = torch.cat([self._widen(name, byte_arrays[name].values) for name in present], dim=1)
        mask_BM = None
        if any(part.mask is not None for part in parts):
            mask_BM = torch.cat(
                [
                    part.mask
                    if part.mask is not None
                    else torch.ones(part.values.shape[:2], dtype=torch.bool, device=part.values.device)
                    for part in parts
                ],
                dim=1,
            )
        return (
            ByteArray(
                values=values_BMC,
                mask=mask_BM,
                grid=None,
                num_content_channels=min(part.num_content_channels for part in parts),
            ),
            segments,
        )

    def _widen(self, name: str, values_BMC: Tensor) -> Tensor:
        padding_1P = self.padding[name]().to(values_BMC.dtype)
        return torch.cat([values_BMC, padding_1P.expand(*values_BMC.shape[:2], -1)], dim=-1)
