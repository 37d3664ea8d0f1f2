"""Position encodings over grids: Fourier features and learned tables.

Shape legend: M grid elements in row-major order, A axes of the grid, K frequency bands, P position channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from perceiver_io.layers import LearnedArray

__all__ = ["FourierPositionEncoding", "LearnedPositionEncoding", "fourier_features", "grid_coordinates"]


def grid_coordinates(
    grid: Sequence[int], *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """Coordinates of every element of a grid, each axis running from -1 to 1 with both ends.

    Args:
        grid: Size of each axis; an axis of size 1 lies at -1, as ``linspace`` has it.
        dtype: Type of the coordinates.
        device: Where to make them.

    Returns:
        (M, A) coordinates.
    """
    axes = [torch.linspace(-1.0, 1.0, size, dtype=dtype, device=device) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(axes))


def fourier_features(
    coordinates_MA: Tensor,
    *,
    num_bands: int,
    max_resolution: Sequence[int],
    include_coordinates: bool = True,
) -> Tensor:
    """Sines and cosines of the coordinates at evenly spaced frequencies (Perceiver, section 3.2 and appendix D).

    Band k of an axis is ``sin(pi f_k x)`` and ``cos(pi f_k x)``, with f_k spaced evenly from 1 to half of
    the axis' maximum resolution, its Nyquist frequency.

    Args:
        coordinates_MA: (..., A) coordinates in [-1, 1].
        num_bands: K, frequencies per axis.
        max_resolution: Resolution of each axis whose Nyquist frequency is the highest band.
        include_coordinates: Whether the coordinates themselves come first.

    Returns:
        (..., P) features: coordinates, sines (axis by axis), cosines; P = A (2 K + 1), or 2 A K without coordinates.
    """
    bands = [
        torch.linspace(
            1.0, resolution / 2, num_bands, dtype=coordinates_MA.dtype, device=coordinates_MA.device
        )
        for resolution in max_resolution
    ]
    phases_MAK = math.pi * coordinates_MA.unsqueeze(-1) * torch.stack(bands)
    phases_ME = phases_MAK.flatten(-2)
    parts = [phases_ME.sin(), phases_ME.cos()]
    return torch.cat([coordinates_MA, *parts] if include_coordinates else parts, dim=-1)


class FourierPositionEncoding(nn.Module):
    """Fourier features of a grid that may have any size at run time.

    Args:
        num_bands: Frequencies per axis.
        max_resolution: Resolution of each axis whose Nyquist frequency is the highest band.
        include_coordinates: Whether the raw coordinates are kept beside the sines and cosines.
    """

    def __init__(
        self, *, num_bands: int, max_resolution: Sequence[int], include_coordinates: bool = True
    ) -> None:
        super().__init__()
        if num_bands < 1:
            raise ValueError(f"num_bands must be at least 1, got {num_bands}.")
        self.num_bands = num_bands
        self.max_resolution = tuple(max_resolution)
        self.include_coordinates = include_coordinates
        self.num_channels = len(self.max_resolution) * (2 * num_bands + int(include_coordinates))

    def forward(self, grid: Sequence[int], *, like: Tensor) -> Tensor:
        """Returns the (M, P) encoding of the grid on the device and in the type of another tensor.

        The phases are computed in float32 at least: a half-precision phase of hundreds of radians is noise.
        """
        dtype = torch.promote_types(like.dtype, torch.float32)
        features_MP = fourier_features(
            grid_coordinates(grid, dtype=dtype, device=like.device),
            num_bands=self.num_bands,
            max_resolution=self.max_resolution,
            include_coordinates=self.include_coordinates,
        )
        return features_MP.to(like.dtype)


class LearnedPositionEncoding(nn.Module):
    """A learned row for each element of a grid; on another grid the table is interpolated.

    One axis is interpolated linearly, two bicubically (as `transformers` does for its Perceiver), three
    trilinearly.

    Args:
        grid: Index shape of the table.
        num_channels: P.
    """

    _MODES: ClassVar[dict[int, str]] = {1: "linear", 2: "bicubic", 3: "trilinear"}

    def __init__(self, *, grid: Sequence[int], num_channels: int) -> None:
        super().__init__()
        if len(grid) not in self._MODES:
            raise ValueError(f"A learned position encoding takes a grid of 1 to 3 axes, got {tuple(grid)}.")
        self.grid = tuple(grid)
        self.num_channels = num_channels
        self.table = LearnedArray(math.prod(self.grid), num_channels)

    def forward(self, grid: Sequence[int], *, like: Tensor) -> Tensor:
        """Returns the (M, P) encoding of the grid in the type of another tensor."""
        table_MP = self.table()
        if tuple(grid) == self.grid:
            return table_MP.to(like.dtype)
        table_1PG = table_MP.T.reshape(1, self.num_channels, *self.grid)
        resized_1PG = nn.functional.interpolate(
            table_1PG, size=tuple(grid), mode=self._MODES[len(self.grid)], align_corners=False
        )
        return resized_1PG.flatten(2).squeeze(0).T.to(like.dtype)
