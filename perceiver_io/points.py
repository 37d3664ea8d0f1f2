"""Points of an output: which of its elements are asked for, by index or by coordinates.

Shape legend: O points, A axes of the output's grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Points"]


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points of a grid; either indices or coordinates.

    Attributes:
        grid: Size of each axis.
        indices: (O, A) int64 index along each axis.
        coordinates: (O, A) floating-point coordinates in [-1, 1].
    """

    grid: tuple[int, ...]
    indices: Tensor | None = None
    coordinates: Tensor | None = None

    @classmethod
    def of_range(
        cls, grid: Sequence[int], start: int, stop: int, *, device: torch.device | None = None
    ) -> Points:
        """Returns the elements `start` to `stop` of a grid in row-major order."""
        flat_O = torch.arange(start, stop, device=device)
        return cls(grid=tuple(grid), indices=_unravelled(flat_O, grid))

    @classmethod
    def parse(
        cls, points: Tensor, grid: Sequence[int], *, name: str, device: torch.device | None = None
    ) -> Points:
        """Reads points as people give them.

        Args:
            points: (O,) integer row-major indices, (O, A) integer indices along each axis, or (O, A) floating-point
                coordinates in [-1, 1].
            grid: Size of each axis.
            name: What messages call the output.
            device: Where to put them.

        Raises:
            ValueError: The type or shape is another, there are none, or one lies outside of the grid.
        """
        grid = tuple(grid)
        what = f"Points of the output {name!r}, whose grid is {grid},"
        if not isinstance(points, Tensor):
            raise ValueError(f"{what} must be a tensor, got {type(points).__name__}.")
        integer = not points.is_floating_point() and not points.is_complex() and points.dtype != torch.bool
        if points.ndim == 2 and points.shape[1] == len(grid) and (integer or points.is_floating_point()):
            pass
        elif not (integer and points.ndim == 1):
            raise ValueError(
                f"{what} must be integer row-major indices (O,), integer indices along each axis (O, {len(grid)}), or "
                f"floating-point coordinates in [-1, 1] (O, {len(grid)}), got {points.dtype} {tuple(points.shape)}."
            )
        if points.shape[0] == 0:
            raise ValueError(f"{what} must be at least one, got none.")
        points = points.to(device)
        if not integer:
            if not torch.compiler.is_compiling():
                low, high = (float(bound) for bound in points.aminmax())
                if not -1 <= low <= high <= 1:  # NaN is not
                    raise ValueError(f"{what} must have coordinates in [-1, 1], got {low:g} to {high:g}.")
            return cls(grid=grid, coordinates=points)
        points = points.long()
        sizes = torch.tensor(math.prod(grid) if points.ndim == 1 else grid, device=points.device)
        if not torch.compiler.is_compiling() and ((points < 0) | (points >= sizes)).any():
            raise ValueError(
                f"{what} must have indices from 0 to {(sizes - 1).tolist()}, got {int(points.min())} to "
                f"{int(points.max())}."
            )
        return cls(grid=grid, indices=_unravelled(points, grid) if points.ndim == 1 else points)

    def __len__(self) -> int:
        points = self.indices if self.coordinates is None else self.coordinates
        assert points is not None
        return points.shape[0]

    def part(self, start: int, stop: int) -> Points:
        """Returns the points `start` to `stop`."""
        return Points(
            grid=self.grid,
            indices=None if self.indices is None else self.indices[start:stop],
            coordinates=None if self.coordinates is None else self.coordinates[start:stop],
        )


def _unravelled(flat_O: Tensor, grid: Sequence[int]) -> Tensor:
    indices = []
    for size in reversed(grid):
        indices.append(flat_O % size)
        flat_O = flat_O.div(size, rounding_mode="floor")
    return torch.stack(indices[::-1], dim=1)
