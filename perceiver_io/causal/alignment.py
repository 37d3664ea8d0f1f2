"""Padding moved before what is real, so that sequences of unequal lengths end together.

Shape legend: B batch, M elements.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["aligned_to_end", "all_real", "joined_masks"]


def aligned_to_end(values: Tensor, mask_BM: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Moves what is real to the end of each row, in order.

    Args:
        values: (B, M, …).
        mask_BM: True where an element is real; None where all are.

    Returns:
        The values, and the mask that belongs to them; None where all are real.
    """
    if mask_BM is None or all_real(mask_BM):
        return values, None
    if all_real(mask_BM[:, 1:] >= mask_BM[:, :-1]):  # it is there already
        return values, mask_BM
    order_BM = mask_BM.to(torch.int8).argsort(dim=1, stable=True)
    index = order_BM.view(*order_BM.shape, *[1] * (values.ndim - 2)).expand_as(values)
    return values.gather(1, index), mask_BM.gather(1, order_BM)


def all_real(mask: Tensor) -> bool:
    """Returns whether a mask hides nothing; False while a graph is compiled, which is for any values."""
    return not torch.compiler.is_compiling() and bool(mask.all())


def joined_masks(parts: Sequence[tuple[Tensor | None, int]], *, like: Tensor) -> Tensor | None:
    """Returns the mask of several sequences, one after the other; None where all of them are real.

    Args:
        parts: Of each its mask (B, M), None where all is real, and M.
        like: A tensor with the batch's size first, on its device.
    """
    if all(mask is None for mask, _ in parts):
        return None
    return torch.cat(
        [
            torch.ones(len(like), count, dtype=torch.bool, device=like.device) if mask is None else mask
            for mask, count in parts
        ],
        dim=1,
    )
