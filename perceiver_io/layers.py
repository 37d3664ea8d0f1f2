"""The two parametrised leaves that everything is built from, each with its own initialisation.

Shape legend: I input channels, F output channels, N rows, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import initialization as init

__all__ = ["LearnedArray", "Linear"]

# Standard deviation of a unit normal that is cut off at two: dividing by it restores the variance that was asked for.
_TRUNCATED_STD = 0.87962566103423978


class Linear(nn.Linear):
    """A linear layer with bias that starts with zero bias and, for unit inputs, outputs of variance ``gain**2``.

    By default each input channel contributes the same share of that variance, ``1 / I``, as in Perceiver IO's
    released code.

    Args:
        in_features: I.
        out_features: F.
        gain: Factor on the initial weights.
        input_shares: Each input channel's share of the variance, I numbers that sum to 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        gain: float = 1.0,
        input_shares: Sequence[float] | None = None,
    ) -> None:
        self.gain = gain
        self.input_shares = None if input_shares is None else tuple(input_shares)
        super().__init__(in_features, out_features)

    def reset_parameters(self) -> None:
        """Draws new initial values."""
        shares = self.input_shares or (1 / self.in_features,) * self.in_features
        std_I = self.weight.new_tensor(shares).sqrt() * self.gain / _TRUNCATED_STD
        unit_FI = nn.init.trunc_normal_(torch.empty_like(self.weight), a=-2.0, b=2.0)
        with torch.no_grad():
            init.copy_(self.weight, unit_FI * std_I)
        init.zeros_(self.bias)


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
