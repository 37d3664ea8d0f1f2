"""Points of an output: which of its elements are asked for, by index or by coordinates.

Points are the same for all samples of a batch, or each sample has its own, as many as the others.

Shape legend: B batch, O points, A axes of the output's grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver_io.input_tools import check_plain
from perceiver_io.value_checks import looks_at

__all__ = ["Points"]


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points of a grid; either indices or coordinates.

    Attributes:
        grid: Size of each axis.
        indices: (O, A) int64 index along each axis, or (B, O, A) where each sample has its own points.
        coordinates: (O, A) floating-point coordinates in [-1, 1], or (B, O, A).
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
        cls,
        points: Tensor,
        grid: Sequence[int],
        *,
        name: str,
        batch_size: int | None = None,
        device: torch.device | None = None,
    ) -> Points:
        """Reads points as people give them.

        | shape | integers | floating point |
        |---|---|---|
        | (O,) | row-major indices, for all samples | |
        | (O, A) | indices along each axis, for all samples | coordinates in [-1, 1], for all samples |
        | (B, O) | row-major indices of each sample | |
        | (B, O, A) | indices along each axis, of each sample | coordinates in [-1, 1], of each sample |

        Integers (X, A) are always (O, A): so (B, O) row-major indices of as many points as the grid has axes would be
        misread. (B, O, A) never is, with A = 1 for a grid of one axis.

        Args:
            points: The points.
            grid: Size of each axis.
            name: What messages call the output.
            batch_size: B; None where points must be the same for all samples.
            device: Where to put them.

        Raises:
            ValueError: The type or shape is another, there are none, they are for another number of samples, or one
                lies outside of the grid.
        """
        grid = tuple(grid)
        check_plain(points, name=f"The tensor of points of the output {name!r}", device=device)
        integer = not points.is_floating_point() and not points.is_complex() and points.dtype != torch.bool
        row_major = _row_major(points, grid, batch_size=batch_size, integer=integer)
        if row_major is None:
            raise _unfit(
                name,
                grid,
                f"must be integer row-major indices {_forms('(O,)', '(B, O)', batch_size)}, integer indices along each "
                f"axis {_forms(*_by_axis(grid), batch_size)}, or floating-point coordinates in [-1, 1] "
                f"{_forms(*_by_axis(grid), batch_size)}, got {points.dtype} {tuple(points.shape)}.",
            )
        if 0 in points.shape:
            raise _unfit(name, grid, "must be at least one, got none.")
        if not integer and points.dtype not in (torch.float32, torch.float64):
            raise _unfit(
                name,
                grid,
                f"must have coordinates in float32 at least, whatever the model is in, got {points.dtype}, which "
                "rounds them by more than a pixel. Make them in float32.",
            )
        # Before they are moved: what comes from the processor's memory is looked at for nothing.
        if looks_at(points):
            _check_inside(points, grid, name=name, row_major=row_major)
        points = points.to(device)
        if not integer:
            return cls(grid=grid, coordinates=points)
        points = points.long()
        return cls(grid=grid, indices=_unravelled(points, grid) if row_major else points)

    @property
    def num_points(self) -> int:
        """O, the points of a sample."""  # no `len`, which would be a constant in a graph that is exported
        return self._given.shape[-2]

    @property
    def per_sample(self) -> bool:
        """Whether each sample has points of its own."""
        return self._given.ndim == 3

    def part(self, start: int, stop: int) -> Points:
        """Returns the points `start` to `stop`, of each sample."""
        return Points(
            grid=self.grid,
            indices=None if self.indices is None else self.indices[..., start:stop, :],
            coordinates=None if self.coordinates is None else self.coordinates[..., start:stop, :],
        )

    @property
    def _given(self) -> Tensor:
        given = self.indices if self.coordinates is None else self.coordinates
        assert given is not None
        return given


def _row_major(
    points: Tensor, grid: tuple[int, ...], *, batch_size: int | None, integer: bool
) -> bool | None:
    """Whether points are row-major indices; None if their shape and type are those of no points."""
    if points.ndim == 1:
        return True if integer else None
    by_axis = points.ndim in (2, 3) and points.shape[-1] == len(grid)
    # In this order: where the number of axes says all, a size that may vary is not compared.
    if by_axis and (points.ndim == 2 or points.shape[0] == batch_size):
        return False if integer or points.is_floating_point() else None
    if integer and points.ndim == 2 and points.shape[0] == batch_size:
        return True
    return None


def _check_inside(points: Tensor, grid: tuple[int, ...], *, name: str, row_major: bool) -> None:
    if points.is_floating_point():
        low, high = (float(bound) for bound in points.detach().aminmax())
        if not -1 <= low <= high <= 1:  # NaN is not
            raise _unfit(name, grid, f"must have coordinates in [-1, 1], got {low:g} to {high:g}.")
        return
    points = points.long()  # no size can be written in 8 bits
    sizes = torch.tensor(math.prod(grid) if row_major else grid, device=points.device)
    if ((points < 0) | (points >= sizes)).any():
        raise _unfit(
            name,
            grid,
            f"must have indices from 0 to {(sizes - 1).tolist()}, got {int(points.min())} to {int(points.max())}.",
        )


def _unfit(name: str, grid: tuple[int, ...], problem: str) -> ValueError:
    return ValueError(f"Points of the output {name!r}, whose grid is {grid}, {problem}")


def _by_axis(grid: tuple[int, ...]) -> tuple[str, str]:
    return f"(O, {len(grid)})", f"(B, O, {len(grid)})"


def _forms(shared: str, per_sample: str, batch_size: int | None) -> str:
    return shared if batch_size is None else f"{shared} or {per_sample.replace('B', str(batch_size))}"


def _unravelled(flat: Tensor, grid: Sequence[int]) -> Tensor:
    """(…,) row-major indices -> (…, A) indices along each axis."""
    indices = []
    for size in reversed(grid):
        before = flat.div(size, rounding_mode="floor")
        indices.append(flat - before * size)  # the remainder, which ONNX has only of sizes that are known
        flat = before
    return torch.stack(indices[::-1], dim=-1)
