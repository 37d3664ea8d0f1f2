"""Gradients of zero for what a pass may leave out.

Processes that train together want a gradient of every parameter in each of them, but a batch may lack an input, or a
loss leave an output out. So there such parameters are tied to a tensor that takes part in any case. A process alone
leaves them without a gradient, as PyTorch does: an optimizer then does nothing to them, not even decay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["with_zero_gradients"]


def with_zero_gradients(x: Tensor, others: Iterable[Tensor]) -> Tensor:
    """Returns a tensor as it is; among several processes, its gradient brings one of zero to others.

    Args:
        x: Any tensor.
        others: Parameters, or what was computed with them, whatever they hold; what needs no gradient is left alone.
    """
    if not _in_several_processes() or not torch.is_grad_enabled():
        return x
    learning = [other for other in others if other.requires_grad]
    return _WithZeroGradients.apply(x, *learning) if learning else x


def _in_several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _WithZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *others: Tensor) -> Tensor:
        ctx.others = others  # not saved: only their shapes are needed, whatever they hold by then
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient, *(torch.zeros_like(other) for other in ctx.others)
