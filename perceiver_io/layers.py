"""The parametrised leaves that everything is built from, each with its own initial values.

Shape legend: I input channels, F output channels, N rows, D channels, B batch, M elements, K tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

__all__ = ["LearnedArray", "LinearStart", "TiedOutput", "linear", "reset_parameters", "under_autocast"]

# Standard deviation of a unit normal that is cut off at two: dividing by it restores the variance that was asked for.
_TRUNCATED_STD = 0.87962566103423978


@dataclass(frozen=True, kw_only=True)
class LinearStart:
    """How a linear layer starts: with zero bias and, for unit inputs, outputs of variance ``gain**2``.

    Attributes:
        gain: Factor on the initial weights.
        input_shares: Each input channel's share of the variance, I numbers that sum to 1. By default each contributes
            the same, ``1 / I``, as in Perceiver IO's released code.
    """

    gain: float = 1.0
    input_shares: tuple[float, ...] | None = None

    def draw(self, layer: nn.Linear) -> None:
        """Draws new initial values, which nothing can have on the meta device."""
        if layer.weight.is_meta:
            return
        if self.input_shares is None:
            shares_I = layer.weight.new_full((layer.in_features,), 1 / layer.in_features)
        else:
            shares_I = layer.weight.new_tensor(self.input_shares)
        std_I = shares_I.sqrt() * self.gain / _TRUNCATED_STD
        unit_FI = nn.init.trunc_normal_(torch.empty_like(layer.weight), a=-2.0, b=2.0)
        with torch.no_grad():
            init.copy_(layer.weight, unit_FI * std_I)
        if layer.bias is not None:
            init.zeros_(layer.bias)


def linear(
    in_features: int,
    out_features: int,
    *,
    gain: float = 1.0,
    input_shares: Sequence[float] | None = None,
    bias: bool = True,
) -> nn.Linear:
    """Returns a linear layer that starts as `LinearStart` says, and does so again when it is reset.

    It is a plain `torch.nn.Linear`: whatever looks for those finds it, to quantise it, adapt it, or shard it.

    Args:
        in_features: I.
        out_features: F.
        gain: As `LinearStart.gain`.
        input_shares: As `LinearStart.input_shares`.
        bias: Whether it has one.
    """
    layer = nn.utils.skip_init(
        nn.Linear, in_features, out_features, bias=bias, device=torch.get_default_device()
    )
    assert isinstance(layer, nn.Linear)
    start = LinearStart(gain=gain, input_shares=None if input_shares is None else tuple(input_shares))
    layer.start = start  # type: ignore[assignment]  # torch declares that modules hold tensors and modules
    start.draw(layer)
    return layer


def reset_parameters(module: nn.Module) -> None:
    """Draws new initial values for what a module itself holds, not for its children.

    Args:
        module: A layer that `linear` made, or anything with a `reset_parameters` of its own; others are left alone.
    """
    start = getattr(module, "start", None)
    if isinstance(start, LinearStart) and isinstance(module, nn.Linear):
        start.draw(module)
    elif callable(reset := getattr(module, "reset_parameters", None)):
        reset()


def under_autocast(x: Tensor) -> bool:
    """Returns whether autocast chooses the types in which layers compute with such a tensor."""
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)  # meta has none, and says so


class LearnedArray(nn.Module):
    """N learned rows of D channels: latents, output queries, positions, paddings.

    Starts as a normal of the given standard deviation, truncated at -2 and 2 (Perceiver, appendix on
    architectural details).
    """

    def __init__(self, num_rows: int, num_channels: int, *, std: float = 0.02) -> None:
        super().__init__()
        self.std = std
        self.weight = nn.Parameter(torch.empty(num_rows, num_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new initial values, which nothing can have on the meta device."""
        if self.weight.is_meta:
            return
        nn.init.trunc_normal_(self.weight, std=self.std, a=-2.0, b=2.0)

    def forward(self) -> Tensor:
        """Returns the array, (N, D)."""
        # Not the parameter itself: hooks that ask for gradients of what comes out would have it trained.
        return self.weight.view_as(self.weight)


class TiedOutput(nn.Module):
    """A linear layer whose weights are an embedding that belongs to another module, and a bias of its own.

    Args:
        embedding: (K, D).
        bias: Whether it has one.
    """

    def __init__(self, embedding: LearnedArray, *, bias: bool = True) -> None:
        super().__init__()
        # In a tuple, so that it is registered, saved and moved by its owner alone.
        self._embedding = (embedding,)
        self.bias = nn.Parameter(torch.zeros(embedding.weight.shape[0])) if bias else None

    def reset_parameters(self) -> None:
        """Sets the bias to zero."""
        if self.bias is not None:
            init.zeros_(self.bias)

    def __deepcopy__(self, memo: dict[int, Any]) -> TiedOutput:
        """Copies the bias; the embedding is the one that was copied with its owner before, or else the same."""
        twin = TiedOutput(memo.get(id(self.embedding), self.embedding), bias=self.bias is not None)
        memo[id(self)] = twin
        for name, value in vars(self).items():
            if name != "_embedding":
                twin.__dict__[name] = copy.deepcopy(value, memo)
        return twin

    @property
    def embedding(self) -> LearnedArray:
        """The array that the weights are, which another module owns."""
        return self._embedding[0]

    @property
    def weight(self) -> Tensor:
        """(K, D)."""
        return self.embedding.weight

    def forward(self, x_BMD: Tensor) -> Tensor:
        """Returns logits of the tokens, (B, M, K)."""
        weight_KD = self.embedding()
        if hasattr(weight_KD, "full_tensor"):  # sharded with its owner, which is not at work now
            from torch.distributed.tensor import Partial

            averaged = [Partial("avg")] * weight_KD.device_mesh.ndim
            weight_KD = weight_KD.full_tensor(grad_placements=averaged).to(x_BMD.dtype)
        return nn.functional.linear(x_BMD, weight_KD, self.bias)
