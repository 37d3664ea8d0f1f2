"""Position encodings against NumPy written for this file and against torch's own interpolation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver_io.position import (
    FourierPositionEncoding,
    LearnedPositionEncoding,
    fourier_features,
    grid_coordinates,
)


def numpy_fourier(
    grid: tuple[int, ...], *, num_bands: int, max_resolution: tuple[int, ...], include_coordinates: bool
) -> np.ndarray:
    """Element by element, channel by channel, in float64: nothing that could share a mistake."""
    rows = []
    for index in np.ndindex(*grid):
        position = [
            -1 + 2 * i / (size - 1) if size > 1 else -1.0 for i, size in zip(index, grid, strict=True)
        ]
        row = list(position) if include_coordinates else []
        for wave in (np.sin, np.cos):
            for x, resolution in zip(position, max_resolution, strict=True):
                for band in range(num_bands):
                    share = band / (num_bands - 1) if num_bands > 1 else 0.0
                    row.append(wave(np.pi * x * (1 + share * (resolution / 2 - 1))))
        rows.append(row)
    return np.array(rows)


@settings(max_examples=25)
@given(
    grid=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    num_bands=st.integers(1, 5),
    resolution=st.integers(2, 40),
    include_coordinates=st.booleans(),
)
def test_fourier_features_are_those_of_numpy(
    grid: tuple[int, ...], num_bands: int, resolution: int, include_coordinates: bool
) -> None:
    max_resolution = tuple(resolution + axis for axis in range(len(grid)))
    encoding = FourierPositionEncoding(
        num_bands=num_bands, max_resolution=max_resolution, include_coordinates=include_coordinates
    )
    ours = encoding(grid, like=torch.zeros((), dtype=torch.float64))
    expected = numpy_fourier(
        grid, num_bands=num_bands, max_resolution=max_resolution, include_coordinates=include_coordinates
    )
    assert ours.shape == (np.prod(grid), encoding.num_channels)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)


def test_grid_is_row_major_with_both_ends() -> None:
    expected = [[-1, -1], [-1, 0], [-1, 1], [1, -1], [1, 0], [1, 1]]
    assert grid_coordinates((2, 3)).tolist() == expected


def test_fourier_features_of_any_points() -> None:
    points = torch.rand(2, 3, 4, 2) * 2 - 1
    features = fourier_features(points, num_bands=5, max_resolution=(8, 6))
    assert features.shape == (2, 3, 4, 2 * (2 * 5 + 1))
    alone = fourier_features(points[1, 2, 3], num_bands=5, max_resolution=(8, 6))
    torch.testing.assert_close(features[1, 2, 3], alone)


def test_half_precision_is_rounded_only_at_the_end() -> None:
    encoding = FourierPositionEncoding(num_bands=64, max_resolution=(224,))
    exact = encoding((224,), like=torch.zeros((), dtype=torch.float64))
    half = encoding((224,), like=torch.zeros((), dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert (half.double() - exact).abs().max() < 2**-8


def test_no_bands_are_refused() -> None:
    with pytest.raises(ValueError, match="num_bands must be at least 1, got 0"):
        FourierPositionEncoding(num_bands=0, max_resolution=(4,))


@pytest.mark.parametrize(
    ("grid", "other", "mode"),
    [((5,), (8,), "linear"), ((4, 6), (7, 3), "bicubic"), ((2, 3, 4), (3, 5, 2), "trilinear")],
)
def test_learned_positions_are_the_table_or_interpolated(
    grid: tuple[int, ...], other: tuple[int, ...], mode: str
) -> None:
    encoding = LearnedPositionEncoding(grid=grid, num_channels=3)
    table = encoding.table.weight.detach()
    like = torch.zeros((), dtype=torch.float32)
    assert torch.equal(encoding(grid, like=like), table)
    as_image = table.T.reshape(1, 3, *grid)
    expected = torch.nn.functional.interpolate(as_image, size=other, mode=mode, align_corners=False)
    torch.testing.assert_close(encoding(other, like=like), expected.reshape(3, -1).T)


def test_learned_positions_of_too_many_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 3 axes"):
        LearnedPositionEncoding(grid=(2, 2, 2, 2), num_channels=3)
