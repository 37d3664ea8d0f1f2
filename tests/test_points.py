"""Points of a grid against NumPy's own indexing."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.points import Points

GRIDS = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


def given_indices(points: Points) -> list[list[int]]:
    assert points.indices is not None and points.coordinates is None
    assert points.indices.dtype == torch.int64
    return points.indices.tolist()


@given(grid=GRIDS, data=st.data())
def test_a_range_is_row_major(grid: tuple[int, ...], data: st.DataObject) -> None:
    size = int(np.prod(grid))
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    points = Points.of_range(grid, start, stop)
    assert points.grid == grid
    assert points.num_points == stop - start
    assert given_indices(points) == [list(index) for index in np.ndindex(*grid)][start:stop]


@given(grid=GRIDS, data=st.data())
def test_row_major_indices_are_unravelled(grid: tuple[int, ...], data: st.DataObject) -> None:
    flat = data.draw(st.lists(st.integers(0, int(np.prod(grid)) - 1), min_size=1, max_size=9))
    points = Points.parse(torch.tensor(flat), grid, name="image")
    assert given_indices(points) == np.stack(np.unravel_index(flat, grid), axis=1).tolist()
    assert points.num_points == len(flat)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
def test_indices_may_be_of_any_integer_type(dtype: torch.dtype) -> None:
    assert given_indices(Points.parse(torch.tensor([5, 0], dtype=dtype), (2, 3), name="y")) == [
        [1, 2],
        [0, 0],
    ]
    tuples = torch.tensor([[1, 2], [0, 1]], dtype=dtype)
    assert given_indices(Points.parse(tuples, (2, 3), name="y")) == [[1, 2], [0, 1]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_floating_point_points_are_coordinates(dtype: torch.dtype) -> None:
    given_points = torch.tensor([[-1.0, 1.0], [0.5, -0.25], [0.0, 0.0]], dtype=dtype)
    points = Points.parse(given_points, (2, 3), name="y")
    assert points.indices is None
    assert points.coordinates is not None
    assert torch.equal(points.coordinates, given_points)
    assert points.num_points == 3


def test_points_of_one_axis_are_a_column_or_flat() -> None:
    assert given_indices(Points.parse(torch.tensor([3, 1]), (5,), name="y")) == [[3], [1]]
    assert given_indices(Points.parse(torch.tensor([[3], [1]]), (5,), name="y")) == [[3], [1]]
    assert Points.parse(torch.tensor([[0.5]]), (5,), name="y").coordinates is not None


def test_parts_are_slices() -> None:
    tuples, coordinates = torch.tensor([[0, 0], [1, 2], [1, 0]]), torch.rand(3, 2)
    part = Points.parse(tuples, (2, 3), name="y").part(1, 3)
    assert given_indices(part) == [[1, 2], [1, 0]]
    part = Points.parse(coordinates, (2, 3), name="y").part(1, 3)
    assert part.coordinates is not None
    assert torch.equal(part.coordinates, coordinates[1:3])
    assert part.grid == (2, 3)
    assert part.num_points == 2


def test_points_go_where_they_are_wanted() -> None:
    for points in (torch.tensor([1]), torch.tensor([[0, 1]])):
        assert Points.parse(points, (2, 3), name="y", device=torch.device("cpu")).indices is not None
    assert Points.of_range((2, 3), 0, 6, device=torch.device("meta")).indices.device.type == "meta"


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([0, 1], r"points of the output 'flow' must be a tensor, got list"),
        (torch.tensor(1), r"\(O, 2\), got torch.int64 \(\)"),
        (torch.tensor([0.5, 0.5]), r"coordinates in \[-1, 1\] \(O, 2\), got torch.float32 \(2,\)"),
        (torch.zeros(4, 3), r"got torch.float32 \(4, 3\)"),
        (torch.zeros(4, 3, dtype=torch.int64), r"got torch.int64 \(4, 3\)"),
        (torch.zeros(1, 4, 2), r"got torch.float32 \(1, 4, 2\)"),
        (torch.zeros(6, dtype=torch.bool), r"got torch.bool \(6,\)"),
        (torch.zeros(6, 2, dtype=torch.bool), r"got torch.bool \(6, 2\)"),
        (torch.zeros(6, 2, dtype=torch.complex64), r"got torch.complex64 \(6, 2\)"),
        (torch.zeros(0, dtype=torch.int64), "at least one, got none"),
        (torch.zeros(0, 2), "at least one, got none"),
        (torch.tensor([0, 6]), "indices from 0 to 5, got 0 to 6"),
        (torch.tensor([-1]), "indices from 0 to 5, got -1 to -1"),
        (torch.tensor([[1, 2], [2, 0]]), r"indices from 0 to \[1, 2\], got 0 to 2"),
        (torch.tensor([[0, -1]]), r"indices from 0 to \[1, 2\], got -1 to 0"),
        (torch.tensor([[0.0, 1.01]]), r"coordinates in \[-1, 1\], got 0 to 1.01"),
        (torch.tensor([[0.0, -1.5]]), r"coordinates in \[-1, 1\], got -1.5 to 0"),
        (torch.zeros(6, 2, dtype=torch.bfloat16), "coordinates in float32 at least, .* got torch.bfloat16"),
        (torch.zeros(6, 2, dtype=torch.float16), "coordinates in float32 at least, .* got torch.float16"),
        (torch.tensor([[0.0, torch.nan]]), r"coordinates in \[-1, 1\], got nan to nan"),
    ],
)
def test_what_are_no_points_is_refused(points: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Points.parse(points, (2, 3), name="flow")
