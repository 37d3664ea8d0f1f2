"""Convolutions in front of samples: what a recording sounds like from one stretch of time to the next.

Shape legend: B batch, F channels of sound, S samples, J samples an element, C channels; M = S / J elements.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_io.input_tools import element_mask

__all__ = ["SampleConvolutions"]


class SampleConvolutions(nn.Module):
    """A convolution for each prime factor of J, the largest first, as speech models have them in front.

    A convolution of stride s looks at 2 s + 1 steps of the one before it; a layer norm over the channels and a GELU
    follow.

    Args:
        sound_channels: F.
        num_channels: C.
        samples_per_element: J.
    """

    def __init__(self, sound_channels: int, num_channels: int, *, samples_per_element: int) -> None:
        super().__init__()
        strides = prime_factors(samples_per_element)[::-1] or [1]
        widths = [sound_channels, *[num_channels] * len(strides)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, num_channels, kernel_size=2 * stride + 1, stride=stride, padding=stride)
            for width, stride in zip(widths, strides, strict=False)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(num_channels) for _ in strides)

    def forward(self, x_BFS: Tensor, mask_BS: Tensor | None = None) -> Tensor:
        """Returns (B, M, C).

        Args:
            x_BFS: The samples, zero where they are masked.
            mask_BS: True where a sample is real. What a convolution makes of masked samples alone is zero for the next.
        """
        x_BCS = x_BFS
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x_BSC = nn.functional.gelu(norm(convolution(x_BCS).transpose(1, 2)))
            if mask_BS is not None:
                mask_BS = element_mask(mask_BS, x_BSC.shape[1:2])
                x_BSC = torch.where(mask_BS[..., None], x_BSC, 0)
            x_BCS = x_BSC.transpose(1, 2)
        return x_BCS.transpose(1, 2)


def prime_factors(number: int) -> list[int]:
    """Returns the prime factors of a whole number, the smallest first; none of 1."""
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors
