"""The two parametrised leaves that everything is built from, each with its own initialisation.

Shape legend: I input channels, F output channels, N rows, D channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["LearnedArray", "Linear"]

# Standard deviation of a unit normal that is cut off at two: dividing by it restores the variance that was asked for.
_TRUNCATED_STD = 0.87962566103423978


class Linear(nn.Linear):
    """A linear layer with bias that starts with variance ``gain**2 / I`` and zero bias (Perceiver IO's released code).

    With layer-normed inputs of unit variance its outputs start with variance ``gain**2``.

    Args:
        in_features: I.
        out_features: F.
        gain: Factor on the initial weights.
    """

    def __init__(self, in_features: int, out_features: int, *, gain: float = 1.0) -> None:
        self.gain = gain
        super().__init__(in_features, out_features)

    def reset_parameters(self) -> None:
        """Draws new initial values."""
        std = self.gain / math.sqrt(self.in_features) / _TRUNCATED_STD
        nn.init.trunc_normal_(self.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(self.bias)


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
        """Draws new initial values."""
        nn.init.trunc_normal_(self.weight, std=self.std, a=-2.0, b=2.0)

    def forward(self) -> Tensor:
        """Returns the array, (N, D)."""
        return self.weight
