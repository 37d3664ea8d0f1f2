"""Numbers that look random and need no seed: the same in every library and on every machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["numbers", "weights"]


def numbers(shape: Sequence[int], offset: int, *, std: float = 1.0) -> Tensor:
    """Evenly spread numbers of a standard deviation: the digits that a sine has from the fifth on."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    digits = (torch.sin(12.9898 * i + 78.233 * offset) * 43758.5453).remainder(1.0)
    return ((digits - 0.5) * math.sqrt(12.0) * std).float().reshape(tuple(shape))


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Tensors by name: matrices that keep variance, scales about one, shifts, and embeddings beside them."""
    made = {}
    for offset, (name, shape) in enumerate(sorted(shapes.items()), start=1):
        if name.endswith(".bias"):
            made[name] = numbers(shape, offset, std=0.2)
        elif len(shape) == 1:
            made[name] = 1 + numbers(shape, offset, std=0.2)
        else:
            made[name] = numbers(shape, offset, std=1.0 if "." not in name else shape[-1] ** -0.5)
    return made
