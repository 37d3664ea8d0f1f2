"""Sizes that may vary: in a graph that is traced once for many of them, they are symbols instead of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

__all__ = ["same_sizes"]


def same_sizes(first: Sequence[int], second: Sequence[int]) -> bool:
    """Returns whether two shapes are the same; where they have symbols, whether they are the same for all values.

    A plain comparison would tie the graph to the answer that it gave for the sizes of the example.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined]  # where sizes are tensors, and a graph is for those of the example alone
        return [int(size) for size in first] == [int(size) for size in second]
    return len(first) == len(second) and all(
        statically_known_true(a == b) for a, b in zip(first, second, strict=True)
    )
