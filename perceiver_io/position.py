"""Position encodings over grids: Fourier features and learned tables.

Shape legend: M grid elements in row-major order, A axes of the grid, K frequency bands, P position channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from perceiver_io.layers import LearnedArray
from perceiver_io.sizes import same_sizes

__all__ = [
    "FourierPositionEncoding",
    "LearnedPositionEncoding",
    "PositionExtent",
    "Resize",
    "Spacing",
    "at_elements",
    "axis_coordinates",
    "flat_indices",
    "fourier_features",
    "grid_coordinates",
    "interpolate",
    "sinusoids",
]

PositionExtent = Literal["input", "nominal"]
"""What -1 to 1 covers: each input, whatever its size; or one of the nominal size, so that padding moves nothing."""

Resize = Literal["interpolate", "truncate"]
Spacing = Literal["ends", "steps"]


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
    axes = axis_coordinates(grid, dtype=dtype, device=device)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(axes))


def axis_coordinates(
    grid: Sequence[int],
    *,
    spacing: Spacing = "ends",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> list[Tensor]:
    """Coordinates along each axis of a grid.

    Args:
        grid: Size of each axis.
        spacing: "ends" runs from -1 to 1 with both ends; "steps" is -1 + 2 i / n, as the original release has it where
            only some points of a grid are asked for.
        dtype: Type of the coordinates.
        device: Where to make them.

    Returns:
        One (n,) tensor per axis.
    """
    if spacing == "ends":
        return [_from_end_to_end(size, dtype=dtype, device=device) for size in grid]
    return [-1 + 2 * torch.arange(size, dtype=dtype, device=device) / size for size in grid]


def _from_end_to_end(size: int, *, dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
    if not torch.compiler.is_compiling():
        return torch.linspace(-1.0, 1.0, size, dtype=dtype, device=device)
    # The same, but for any size: a graph with `linspace` is one for the size that it was traced with.
    from_start = torch.arange(size, dtype=dtype, device=device)
    from_end = from_start.flip(0)
    step = 2 / from_end[:1].clamp(min=1)
    return torch.where(from_start <= from_end, -1 + step * from_start, 1 - step * from_end)


def _at_nominal_steps(
    size: int, nominal: int, *, dtype: torch.dtype, device: torch.device | str | None
) -> Tensor:
    """Coordinates of `size` elements, spaced as `nominal` ones are that run from -1 to 1: further ones go on past 1."""
    from_start = torch.arange(size, dtype=dtype, device=device)
    last = max(nominal - 1, 1)
    step = 2 / last
    # From the nearer end, as `linspace` does, so that both ends are exact.
    return torch.where(2 * from_start < last, -1 + step * from_start, 1 - step * (last - from_start))


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
        (..., P) features, which are coordinates, sines (axis by axis), cosines; P = A (2 K + 1), or 2 A K without
        coordinates.
    """
    bands = [
        torch.linspace(
            1.0, resolution / 2, num_bands, dtype=coordinates_MA.dtype, device=coordinates_MA.device
        )
        for resolution in max_resolution
    ]
    # In the order of the releases: phases reach tens of thousands of radians, where float32 rounds to thousandths.
    phases_MAK = math.pi * (coordinates_MA.unsqueeze(-1) * torch.stack(bands))
    phases_ME = phases_MAK.flatten(-2)
    parts = [phases_ME.sin(), phases_ME.cos()]
    return torch.cat([coordinates_MA, *parts] if include_coordinates else parts, dim=-1)


def sinusoids(positions: Tensor, num_channels: int, *, like: Tensor) -> Tensor:
    """Sines of positions at falling frequencies, then their cosines, as in the release of Perceiver AR.

    Frequency k of P / 2 is ``10000 ** (-k / (P / 2 - 1))``: from 1 to 1/10000, both ends.

    Args:
        positions: Integers.
        num_channels: P, an even number.
        like: Whose type the sines get.

    Returns:
        (…, P).
    """
    num_frequencies = num_channels // 2
    steps = torch.arange(num_frequencies, dtype=torch.float64, device=positions.device)
    frequencies = 10_000.0 ** (-steps / max(num_frequencies - 1, 1))
    phases = positions.double()[..., None] * frequencies
    return torch.cat([phases.sin(), phases.cos()], dim=-1).to(like.dtype)


class FourierPositionEncoding(nn.Module):
    """Fourier features of a grid that may have any size at run time.

    Args:
        num_bands: Frequencies per axis.
        max_resolution: Resolution of each axis whose Nyquist frequency is the highest band.
        include_coordinates: Whether the raw coordinates are kept beside the sines and cosines.
        nominal_grid: The grid that runs from -1 to 1. Elements of any other grid are spaced as those of this one, so
            that an element has the same position in all of them; what lies beyond goes on past 1. If None, each grid
            runs from -1 to 1.
    """

    def __init__(
        self,
        *,
        num_bands: int,
        max_resolution: Sequence[int],
        include_coordinates: bool = True,
        nominal_grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if num_bands < 1:
            raise ValueError(f"num_bands must be at least 1, got {num_bands}.")
        self.num_bands = num_bands
        self.max_resolution = tuple(max_resolution)
        self.nominal_grid = None if nominal_grid is None else tuple(nominal_grid)
        self.include_coordinates = include_coordinates
        self.num_channels = len(self.max_resolution) * (2 * num_bands + int(include_coordinates))

    def forward(self, grid: Sequence[int], *, like: Tensor) -> Tensor:
        """Returns the (M, P) encoding of the grid on the device and in the type of another tensor.

        The phases are computed in float32 at least: a half-precision phase of hundreds of radians is noise.
        """
        features = self._axis_features(self._axes(grid, like=like), like=like)
        # Each feature depends on one axis alone: no sine is computed twice, and nothing is held twice.
        encoding = like.new_empty(*grid, self.num_channels)
        start = 0
        for axis, feature_IK in features:
            shape = [1] * len(grid) + [feature_IK.shape[1]]
            shape[axis] = -1
            encoding[..., start : start + feature_IK.shape[1]] = feature_IK.view(shape)
            start += feature_IK.shape[1]
        return encoding.flatten(0, -2)

    def at_indices(
        self, grid: Sequence[int], indices_OA: Tensor, *, spacing: Spacing = "ends", like: Tensor
    ) -> Tensor:
        """Returns the (…, O, P) encoding of some elements of a grid, by their (…, O, A) index along each axis."""
        features = self._axis_features(self._axes(grid, spacing=spacing, like=like), like=like)
        return torch.cat([feature_IK[indices_OA[..., axis]] for axis, feature_IK in features], dim=-1)

    def at_coordinates(self, coordinates_OA: Tensor, *, like: Tensor) -> Tensor:
        """Returns the (…, O, P) encoding of any (…, O, A) coordinates in [-1, 1]."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        features_OP = fourier_features(
            coordinates_OA.to(dtype),
            num_bands=self.num_bands,
            max_resolution=self.max_resolution,
            include_coordinates=self.include_coordinates,
        )
        return features_OP.to(like.dtype)

    def _axes(self, grid: Sequence[int], *, spacing: Spacing = "ends", like: Tensor) -> list[Tensor]:
        if len(grid) != len(self.max_resolution):
            raise ValueError(
                f"These positions are of {len(self.max_resolution)} axes, got the grid {tuple(grid)}."
            )
        dtype = torch.promote_types(like.dtype, torch.float32)
        if self.nominal_grid is not None:
            return [
                _at_nominal_steps(size, nominal, dtype=dtype, device=like.device)
                for size, nominal in zip(grid, self.nominal_grid, strict=True)
            ]
        return axis_coordinates(grid, spacing=spacing, dtype=dtype, device=like.device)

    def _axis_features(self, axes: Sequence[Tensor], *, like: Tensor) -> list[tuple[int, Tensor]]:
        """Which axis, and its (n, …) features, in the order of `fourier_features`."""
        parts: list[tuple[int, Tensor]] = []
        if self.include_coordinates:
            parts += [(axis, x_I[:, None]) for axis, x_I in enumerate(axes)]
        waves = [
            fourier_features(
                x_I[:, None],
                num_bands=self.num_bands,
                max_resolution=(resolution,),
                include_coordinates=False,
            )
            for x_I, resolution in zip(axes, self.max_resolution, strict=True)
        ]
        parts += [(axis, wave_IK[:, : self.num_bands]) for axis, wave_IK in enumerate(waves)]
        parts += [(axis, wave_IK[:, self.num_bands :]) for axis, wave_IK in enumerate(waves)]
        return [(axis, feature_IK.to(like.dtype)) for axis, feature_IK in parts]


class LearnedPositionEncoding(nn.Module):
    """A learned row for each element of a grid.

    On another grid the table is interpolated (one axis linearly, two bicubically, as `transformers` does for its
    Perceiver, three trilinearly), or cut off.

    Args:
        grid: Index shape of the table.
        num_channels: P.
        resize: "interpolate", or "truncate" to take the first places along each axis.
    """

    _MODES: ClassVar[dict[int, str]] = {1: "linear", 2: "bicubic", 3: "trilinear"}

    def __init__(self, *, grid: Sequence[int], num_channels: int, resize: Resize = "interpolate") -> None:
        super().__init__()
        if len(grid) not in self._MODES:
            raise ValueError(f"A learned position encoding takes a grid of 1 to 3 axes, got {tuple(grid)}.")
        self.resize = resize
        self.grid = tuple(grid)
        self.num_channels = num_channels
        self.table = LearnedArray(math.prod(self.grid), num_channels)

    def forward(self, grid: Sequence[int], *, like: Tensor) -> Tensor:
        """Returns the (M, P) encoding of the grid in the type of another tensor.

        Raises:
            ValueError: The grid is larger than a table that is not interpolated.
        """
        table_MP = self.table()
        if same_sizes(grid, self.grid):
            return table_MP.to(like.dtype)
        if self.resize == "truncate":
            if any(size > most for size, most in zip(grid, self.grid, strict=True)):
                raise ValueError(
                    f"There are positions for {_by(self.grid)} elements, got {_by(grid)}. Cut the input, or split it."
                )
            table_GP = table_MP.unflatten(0, self.grid)[tuple(slice(size) for size in grid)]
            return table_GP.flatten(0, -2).to(like.dtype)
        table_1PG = table_MP.T.reshape(1, self.num_channels, *self.grid)
        resized_1PG = nn.functional.interpolate(
            table_1PG, size=tuple(grid), mode=self._MODES[len(self.grid)], align_corners=False
        )
        return resized_1PG.flatten(2).squeeze(0).T.to(like.dtype)

    def at_indices(self, grid: Sequence[int], indices_OA: Tensor, *, like: Tensor) -> Tensor:
        """Returns the (…, O, P) encoding of some elements of a grid, by their (…, O, A) index along each axis."""
        return self.forward(grid, like=like)[flat_indices(indices_OA, grid)]

    def at_coordinates(self, coordinates_OA: Tensor, *, spacing: Spacing = "ends", like: Tensor) -> Tensor:
        """Returns the (…, O, P) encoding of (…, O, A) coordinates in [-1, 1], linear between rows of the table."""
        table_1MP = self.table()[None].to(like.dtype)
        flat_OA = coordinates_OA.flatten(0, -2)
        rows_1OP = interpolate(table_1MP, self.grid, flat_OA, spacing=spacing)
        return rows_1OP[0].unflatten(0, coordinates_OA.shape[:-1])


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def flat_indices(indices_OA: Tensor, grid: Sequence[int]) -> Tensor:
    """Returns the (…, O) row-major indices of elements that are given by (…, O, A) indices along each axis."""
    flat_O = indices_OA[..., 0]
    for axis in range(1, len(grid)):
        flat_O = flat_O * grid[axis] + indices_OA[..., axis]
    return flat_O


def at_elements(values_BMP: Tensor, flat_O: Tensor) -> Tensor:
    """Returns some elements of each sample.

    Args:
        values_BMP: (B, M, …), what lies at each element.
        flat_O: (O,) indices of elements, for all samples; or (B, O), for each its own.

    Returns:
        (B, O, …).
    """
    if flat_O.ndim == 1:
        return values_BMP[:, flat_O]
    samples_B1 = torch.arange(flat_O.shape[0], device=flat_O.device)[:, None]
    return values_BMP[samples_B1, flat_O]


def interpolate(
    values_BMP: Tensor, grid: Sequence[int], coordinates_OA: Tensor, *, spacing: Spacing = "ends"
) -> Tensor:
    """Interpolates what lies on a grid linearly at any coordinates.

    Args:
        values_BMP: One row for each element of the grid.
        grid: Size of each axis.
        coordinates_OA: (O, A) coordinates in [-1, 1], for all samples; or (B, O, A), for each its own.
        spacing: Where the elements lie; see `axis_coordinates`. Past the last of "steps", the last is taken.

    Returns:
        (B, O, P).
    """
    coordinates_OA = coordinates_OA.to(torch.promote_types(coordinates_OA.dtype, torch.float32))
    # Each axis on its own: the two rows around a coordinate, weighted by how near they are.
    first_O = coordinates_OA[..., 0]
    corners: list[tuple[Tensor, Tensor]] = [
        (torch.zeros_like(first_O, dtype=torch.int64), torch.ones_like(first_O))
    ]
    for axis, size in enumerate(grid):
        place_O = (coordinates_OA[..., axis] + 1) / 2 * (size if spacing == "steps" else size - 1)
        place_O = place_O.clamp(max=size - 1)
        low_O = place_O.floor().clamp(0, max(size - 2, 0))
        share_O = place_O - low_O
        sides = [(low_O.long(), 1 - share_O)]
        if size > 1:
            sides.append((low_O.long() + 1, share_O))
        corners = [
            (flat_O * size + index_O, weight_O * side_O)
            for flat_O, weight_O in corners
            for index_O, side_O in sides
        ]
    return torch.stack(
        [
            at_elements(values_BMP, flat_O) * weight_O.to(values_BMP.dtype)[..., None]
            for flat_O, weight_O in corners
        ]
    ).sum(dim=0)
