"""Rotary positions: pairs of channels of queries and keys, turned by angles that grow with the position.

Shape legend: B batch, H heads, M elements, E channels a head, R rotated channels, R / 2 of them pairs.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["RotaryPositions", "Rotation", "Wavelengths"]

Wavelengths = Literal["geometric", "both_ends"]
"""How the frequencies of pairs are spaced, i = 0 … R/2 - 1: "geometric" is w^(-2i/R), as in RoFormer; "both_ends" goes
from 1 to 1/w exactly, as in the release of Perceiver AR."""


class Rotation:
    """Cosines and sines of elements, (B or 1, 1, M, R/2) each, by which queries and keys are turned.

    Args:
        angles_BMR: (B or 1, M, R/2) float64.
        like: Whose type and device the cosines get.
    """

    def __init__(self, angles_BMR: Tensor, *, like: Tensor) -> None:
        self.cos = angles_BMR.cos().to(like)[:, None]
        self.sin = angles_BMR.sin().to(like)[:, None]

    def last(self, count: int) -> Rotation:
        """Returns that of the last so many elements."""
        part = object.__new__(Rotation)
        start = self.cos.shape[2] - count
        part.cos, part.sin = self.cos[:, :, start:], self.sin[:, :, start:]
        return part

    def __call__(self, x_BHME: Tensor) -> Tensor:
        """Turns the first R channels of each head; neighbours are a pair (RoFormer, section 3.2.2)."""
        num_rotated = 2 * self.cos.shape[-1]
        a, b = x_BHME[..., 0:num_rotated:2], x_BHME[..., 1:num_rotated:2]
        turned = torch.stack([a * self.cos - b * self.sin, b * self.cos + a * self.sin], dim=-1).flatten(-2)
        turned = turned.to(x_BHME.dtype)  # under autocast, cosines have more digits than what they turn
        if num_rotated == x_BHME.shape[-1]:
            return turned
        return torch.cat([turned, x_BHME[..., num_rotated:]], dim=-1)


class RotaryPositions:
    """Angles by position. They are computed in float64: at the millionth position float32 is off by 0.06.

    Args:
        num_channels: R, an even number; 0 for no rotation.
        wavelengths: Spacing of the frequencies.
        max_wavelength: w, in positions, over 2 pi.
        backwards: Whether the angles fall with the position, as where positions are counted from the end.
    """

    def __init__(
        self, num_channels: int, *, wavelengths: Wavelengths, max_wavelength: float, backwards: bool
    ) -> None:
        self.num_channels = num_channels
        self.wavelengths = wavelengths
        self.max_wavelength = max_wavelength
        self.sign = -1.0 if backwards else 1.0

    def __call__(self, positions_BM: Tensor, *, like: Tensor) -> Rotation | None:
        """Returns the rotation of elements at these positions, (B or 1, M) integers; None if no channel is turned."""
        if not self.num_channels:
            return None
        if positions_BM.device.type == "mps":  # which has no float64
            positions_BM = positions_BM.cpu()
        num_pairs = self.num_channels // 2
        steps = torch.arange(num_pairs, dtype=torch.float64, device=positions_BM.device)
        if self.wavelengths == "both_ends" and num_pairs > 1:
            steps = steps * (num_pairs / (num_pairs - 1))
        exponents = -2 * steps / self.num_channels
        frequencies = self.sign * torch.as_tensor(self.max_wavelength, dtype=torch.float64) ** exponents
        return Rotation(positions_BM.double()[..., None] * frequencies, like=like)
