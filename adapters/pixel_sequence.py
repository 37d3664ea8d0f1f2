"""Pixels as a sequence: one token a value, in raster order, with a learned position along each axis.

Shape legend: B batch, T tokens, A axes, C channels of the byte array; M = T elements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perceiver_io.byte_array import ByteArray
from perceiver_io.causal.sequence import SequenceAdapter, token_positions
from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import check_indices, check_mask, check_positive, check_shape
from perceiver_io.layers import LearnedArray
from perceiver_io.registry import register_adapter

__all__ = ["PixelSequenceAdapter"]


@register_adapter("pixel-sequence")
class PixelSequenceAdapter(SequenceAdapter):
    """Embeds the values of a grid one by one, the last axis fastest, after a start token (Perceiver AR, on ImageNet).

    To each a learned vector is added for its place along each axis: row, column and colour of a pixel's value. The
    start token stands before the first place of each. A mask is (B, T), True where a token is real.

    Args:
        config: The settings.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the adapter.

        Attributes:
            vocab_size: How many ids there are: values, the start token, and what else a vocabulary has.
            size: Length of each axis: height, width and image channels.
            num_channels: C.
            num_special_tokens: How many of the first ids are no values; the last of them is the start token.
        """

        vocab_size: int
        size: tuple[int, ...]
        num_channels: int
        num_special_tokens: int = 1

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(self, "vocab_size", "size", "num_channels", "num_special_tokens")
            if not self.size:
                raise ValueError("PixelSequenceAdapter.Config.size must have one axis or more, got none.")
            if self.vocab_size < self.num_special_tokens + 1:
                raise ValueError(
                    f"PixelSequenceAdapter.Config.vocab_size is {self.vocab_size}, but {self.num_special_tokens} ids "
                    "are no values (num_special_tokens): expected more."
                )

        @property
        def max_length(self) -> int:
            """Tokens of a whole image: the start token and each value."""
            return 1 + math.prod(self.size)

    has_absolute_positions = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = config.vocab_size
        self.num_channels = self.num_content_channels = config.num_channels
        self.embedding = LearnedArray(config.vocab_size, config.num_channels)
        # Row 0 is the start token's.
        self.positions = nn.ModuleList(
            LearnedArray(1 + length, config.num_channels) for length in config.size
        )

    def forward(self, x: Tensor, mask: Tensor | None = None, positions: Tensor | None = None) -> ByteArray:
        """Embeds a batch of token ids.

        Args:
            x: (B, T) int64 or int32 ids: the start token, and values in raster order, as many as there are so far.
            mask: (B, T) bool, True where a token is real. Padding before the start token moves nothing.
            positions: (B, T) int64 places in the sequence, 0 that of the start token; counted among real tokens if
                None.

        Raises:
            ValueError: The rank or type does not fit, the batch is empty, there are more tokens than an image has, or
                an id is not in the vocabulary.
        """
        check_shape(
            x, ("batch", "tokens"), name="Pixel ids", advice="Give one sequence a batch axis: ids[None]."
        )
        check_mask(mask, x.shape, x=x, name="pixel ids")
        check_indices(
            x,
            count=self.vocab_size,
            name="Pixel ids",
            advice="Use the processor that belongs to the model.",
            mask=mask,
        )
        ids_BT = x if mask is None else torch.where(mask, x, 0)
        if positions is None:
            positions = (
                torch.arange(x.shape[1], device=x.device)[None] if mask is None else token_positions(mask)
            )
        return ByteArray(
            values=self.embed(ids_BT, positions),
            mask=mask,
            grid=(x.shape[1],),
            num_content_channels=self.num_content_channels,
        )

    def embed(self, ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
        """Returns the elements (B, T, C) of ids at positions.

        Args:
            ids_BT: Ids.
            positions_BT: (B or 1, T) int64, from 0, the start token's.

        Raises:
            ValueError: A position is none of the image's.
        """
        check_indices(
            positions_BT,
            count=self.config.max_length,
            name="Positions",
            advice=f"An image of {self.config.size} has a start token and {self.config.max_length - 1} values.",
        )
        values_BTC = nn.functional.embedding(ids_BT, self.embedding())
        places = torch.unravel_index((positions_BT - 1).clamp(min=0), self.config.size)
        is_start_BT = positions_BT == 0
        for table, place_BT in zip(self.positions, places, strict=True):
            rows_BT = torch.where(is_start_BT, 0, place_BT + 1)
            values_BTC = values_BTC + nn.functional.embedding(rows_BT, table())
        return values_BTC

    def tied_embedding(self) -> LearnedArray:
        """Returns the embeddings, (vocab_size, channels): decoders may use the same for their logits."""
        return self.embedding
