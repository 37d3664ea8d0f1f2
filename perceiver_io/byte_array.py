"""The byte array: what every modality becomes before the encoder sees it.

Shape legend: B batch, M elements, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import check_plain_anywhere
from perceiver_io.layers import LearnedArray, under_autocast

__all__ = ["ByteArray", "ByteArrayPacker", "PackingConfig", "Segment"]


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
        check_plain_anywhere(self.values, name="The values of a byte array")
        if self.mask is not None:
            check_plain_anywhere(self.mask, name="The mask of a byte array")
        if self.values.ndim != 3:
            raise ValueError(
                f"A byte array's values must be (B, M, C), got the shape {tuple(self.values.shape)}."
            )
        if not self.values.is_floating_point():
            raise ValueError(f"A byte array's values must be floating point, got {self.values.dtype}.")
        num_elements, num_channels = self.values.shape[1:]
        if self.mask is not None and self.mask.shape != self.values.shape[:2]:
            raise ValueError(
                f"A byte array's mask must be {tuple(self.values.shape[:2])} (B, M), got {tuple(self.mask.shape)}."
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

    def in_type_of(self, weight: Tensor) -> ByteArray:
        """Returns the same elements in the type of a weight, unless autocast chooses the types.

        Not every input says in which type the model computes, and no adapter asks: indices do not.
        """
        if self.values.dtype == weight.dtype or under_autocast(self.values):
            return self
        return replace(self, values=self.values.to(weight.dtype))


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Where one input lies in the packed byte array: elements ``start`` to ``start + length``.

    Attributes:
        start: The first element.
        length: M, how many.
        grid: As `ByteArray.grid`.
        num_content_channels: As `ByteArray.num_content_channels`.
        hidden: (B, M) bool, True where the mask token stands for the element; None for inputs without a mask token.
    """

    start: int
    length: int
    grid: tuple[int, ...] | None
    num_content_channels: int
    hidden: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class PackingConfig(ComponentConfig):
    """How the byte arrays of several inputs are joined.

    Attributes:
        min_padding: The packed width is the widest input's plus so many channels, so that every input gets at least
            so many channels of its own; with 0 the widest gets none.
        mask_probabilities: Pairs of an input's name and a probability. Such an input has a learned mask token. In
            training, each of its elements is replaced by the token with this probability; at 1 all are, always. Where
            the probability is not 0, an element that is masked, and an input that always has the same number of
            elements but is not there, is shown as the token, so that the model knows that something is missing.
        input_dropout: Pairs of an input's name and a probability. In training, each sample loses such an input as a
            whole with this probability: all of its elements are masked, and what `mask_probabilities` says of masked
            elements holds for them. A sample that would lose all of its inputs keeps one,
            whichever came closest to staying: with equal probabilities, any of them is as likely as the others.
    """

    min_padding: int = 1
    mask_probabilities: tuple[tuple[str, float], ...] = ()
    input_dropout: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_padding < 0:
            raise ValueError(f"PackingConfig.min_padding must be 0 or more, got {self.min_padding}.")
        for field in ("mask_probabilities", "input_dropout"):
            pairs = getattr(self, field)
            names = [name for name, _ in pairs]
            if len(set(names)) != len(names) or not all(0 <= probability <= 1 for _, probability in pairs):
                raise ValueError(
                    f"PackingConfig.{field} must hold one probability from 0 to 1 for each input it names, got {pairs}."
                )


class ByteArrayPacker(nn.Module):
    """Joins the byte arrays of several inputs into one (Perceiver IO, appendix on multimodal autoencoding).

    Each input is widened to the widest by a learned padding of its own, which also tells the inputs apart. One
    input alone is not widened. Inputs are packed in alphabetical order of their names; an input that a batch lacks is
    left out, which is the same as masking all of its elements, unless mask tokens stand for it.

    Args:
        num_channels: Width of each input's byte array, by name.
        config: The settings; the defaults if None.
        num_elements: Number of elements of the inputs that always have the same.
        last: An input that is packed after all others, whatever its name.

    Raises:
        ValueError: There is no input, or the settings name one that is not there.
    """

    def __init__(
        self,
        num_channels: Mapping[str, int],
        *,
        config: PackingConfig | None = None,
        num_elements: Mapping[str, int] | None = None,
        last: str | None = None,
    ) -> None:
        super().__init__()
        if not num_channels:
            raise ValueError("A model needs at least one input, got none.")
        config = PackingConfig() if config is None else config
        self.names = tuple(sorted(num_channels, key=lambda name: (name == last, name)))
        alone = len(self.names) == 1
        self.num_channels = max(num_channels.values()) + (0 if alone else config.min_padding)
        self.probabilities = dict(config.mask_probabilities)
        self.dropout = dict(config.input_dropout)
        for field, named in (("mask_probabilities", self.probabilities), ("input_dropout", self.dropout)):
            if unknown := sorted(set(named) - set(self.names)):
                raise ValueError(f"{field} names {unknown}, but the inputs are {list(self.names)}.")
        self.padding = nn.ModuleDict()
        if not alone:
            for name in self.names:
                if (missing := self.num_channels - num_channels[name]) > 0:
                    self.padding[name] = LearnedArray(1, missing)
        self.mask_tokens = nn.ModuleDict(
            {name: LearnedArray(1, self.num_channels) for name in self.names if name in self.probabilities}
        )
        # Inputs that mask tokens stand for where they are not there.
        self.num_elements = {
            name: count for name, count in (num_elements or {}).items() if self.probabilities.get(name)
        }

    def forward(self, byte_arrays: Mapping[str, ByteArray]) -> tuple[ByteArray, dict[str, Segment]]:
        """Packs the byte arrays.

        Args:
            byte_arrays: One byte array for each input that the batch has, at least one.

        Returns:
            The packed byte array, and where each input lies in it.
        """
        parts: dict[str, ByteArray] = {}
        hidden: dict[str, Tensor] = {}
        batch_size = next(iter(byte_arrays.values())).values.shape[0]
        if self.training and self.dropout:
            byte_arrays = self._with_dropout(byte_arrays)
        for name in self.names:
            if name in byte_arrays:
                parts[name] = self.widened(name, byte_arrays[name])
                if name in self.probabilities:
                    parts[name], hidden[name] = self._masked(name, parts[name])
            elif name in self.num_elements:
                parts[name], hidden[name] = self._lacking(name, batch_size=batch_size)
        segments: dict[str, Segment] = {}
        start = 0
        for name, part in parts.items():
            length = part.values.shape[1]
            segments[name] = Segment(
                start=start,
                length=length,
                grid=part.grid,
                num_content_channels=part.num_content_channels,
                hidden=hidden.get(name),
            )
            start += length
        if len(parts) == 1:
            return next(iter(parts.values())), segments

        mask_BM = None
        if any(part.mask is not None for part in parts.values()):
            mask_BM = torch.cat([_mask(part) for part in parts.values()], dim=1)
        return (
            ByteArray(
                values=torch.cat([part.values for part in parts.values()], dim=1),
                mask=mask_BM,
                grid=None,
                num_content_channels=min(part.num_content_channels for part in parts.values()),
            ),
            segments,
        )

    def widened(self, name: str, part: ByteArray) -> ByteArray:
        """Returns the byte array of an input with the padding that it has among others."""
        if name not in self.padding:
            return part
        padding_1P = self.padding[name]()
        part = part.in_type_of(padding_1P)
        padding_BMP = padding_1P.to(part.values.dtype).expand(*part.values.shape[:2], -1)
        return replace(part, values=torch.cat([part.values, padding_BMP], dim=-1))

    def _with_dropout(self, byte_arrays: Mapping[str, ByteArray]) -> dict[str, ByteArray]:
        """The inputs without those that each sample loses."""
        values = next(iter(byte_arrays.values())).values
        # For all that may be lost, whatever the batch has: what is drawn next does not depend on it.
        draws_BI = torch.rand(values.shape[0], len(self.dropout), device=values.device)
        names = list(self.dropout)
        lost = {name: draws_BI[:, index] < self.dropout[name] for index, name in enumerate(names)}
        left_B = torch.zeros_like(draws_BI[:, 0], dtype=torch.bool)
        last: dict[
            str, Tensor
        ] = {}  # how far from being lost each input is that a sample may keep as its last one
        for name, part in byte_arrays.items():
            if self.probabilities.get(name) == 1:  # the model never sees it
                continue
            real_B = _mask(part).any(dim=1)
            left_B = left_B | (real_B & ~lost[name] if name in lost else real_B)
            if name in lost:
                last[name] = torch.where(
                    real_B, draws_BI[:, names.index(name)] / max(self.dropout[name], 1e-9), -1
                )
        if last:
            most_B = torch.stack(list(last.values())).amax(dim=0)
            for name, margin_B in last.items():
                lost[name] = lost[name] & (left_B | (margin_B < most_B))
        return {
            name: replace(part, mask=_mask(part) & ~lost[name][:, None]) if name in lost else part
            for name, part in byte_arrays.items()
        }

    def _masked(self, name: str, part: ByteArray) -> tuple[ByteArray, Tensor]:
        """The input with its mask token where elements are hidden, and where that is."""
        probability = self.probabilities[name]
        shape, device = part.values.shape[:2], part.values.device
        hidden_BM = torch.zeros(shape, dtype=torch.bool, device=device)
        if not probability:  # the token is there, and never seen
            return part, hidden_BM
        if part.mask is not None:
            hidden_BM = ~part.mask
        if probability == 1:
            hidden_BM = torch.ones_like(hidden_BM)
        elif self.training:
            hidden_BM = hidden_BM | (torch.rand(shape, device=device) < probability)
        token_1C = self.mask_tokens[name]().to(part.values.dtype)
        values_BMC = torch.where(hidden_BM[..., None], token_1C, part.values)
        return replace(part, values=values_BMC, mask=None), hidden_BM

    def _lacking(self, name: str, *, batch_size: int) -> tuple[ByteArray, Tensor]:
        """Mask tokens for an input that is not there, all of whose elements are hidden."""
        count = self.num_elements[name]
        values_BMC = self.mask_tokens[name]().expand(batch_size, count, -1)
        hidden_BM = torch.ones(values_BMC.shape[:2], dtype=torch.bool, device=values_BMC.device)
        return ByteArray(values=values_BMC, grid=(count,), num_content_channels=0), hidden_BM


def _mask(part: ByteArray) -> Tensor:
    if part.mask is not None:
        return part.mask
    return torch.ones(part.values.shape[:2], dtype=torch.bool, device=part.values.device)
