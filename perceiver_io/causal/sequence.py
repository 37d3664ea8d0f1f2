"""Adapters of sequences that can be continued: each element depends on one token, and on where that stands.

Shape legend: B batch, T tokens, C channels.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from perceiver_io.adapter import InputAdapter
from perceiver_io.byte_array import ByteArray

__all__ = ["SequenceAdapter", "token_positions"]


class SequenceAdapter(InputAdapter):
    """An adapter of tokens that a causal encoder can continue.

    Element i is made of token i alone: what comes later changes nothing.

    Attributes:
        vocab_size: How many ids there are.
        has_absolute_positions: Whether elements say where they stand. Then a window that moves on is another one.
    """

    vocab_size: int
    has_absolute_positions: bool

    @abstractmethod
    def embed(self, ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
        """Returns the elements (B, T, C) of tokens at positions, without looking at either.

        Args:
            ids_BT: Token ids.
            positions_BT: (B or 1, T) int64, from 0.
        """

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None, positions: Tensor | None = None) -> ByteArray:
        """Embeds token ids.

        Args:
            x: (B, T) ids.
            mask: (B, T) bool, True where a token is real.
            positions: (B, T) int64 places in the sequence; if None, tokens are counted from the first, or from the
                first that is real where the adapter says so.
        """


def token_positions(mask_BT: Tensor) -> Tensor:
    """Returns the position of each token among those that are real, (B, T) int64; 0 for padding before them."""
    return (mask_BT.to(torch.int64).cumsum(dim=1) - 1).clamp(min=0)
