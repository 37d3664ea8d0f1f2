"""Gradients of zero for parameters that a pass may leave out.

Distributed training wants a gradient of every parameter in every process, but a batch may lack an input, or a loss
leave an output out. Such parameters are tied to a tensor that takes part in any case.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["with_zero_gradients"]


def with_zero_gradients(x: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """Returns a tensor as it is, whose gradient brings one of zero to parameters, whatever these hold.

    Args:
        x: Any tensor.
        parameters: Those that are frozen are left alone.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return _WithZeroGradients.apply(x, *trained) if trained and torch.is_grad_enabled() else x


class _WithZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.parameters = parameters  # not saved: only their shapes are needed, whatever they hold by then
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient, *(torch.zeros_like(parameter) for parameter in ctx.parameters)
