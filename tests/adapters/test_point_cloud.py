"""The adapter of point clouds: scaling, Fourier features, sets, and what it refuses."""

from typing import Any

import numpy as np
import pytest
import torch

from perceiver_io.adapters.point_cloud import PointCloudAdapter


def adapter(**fields: Any) -> PointCloudAdapter:
    return PointCloudAdapter(PointCloudAdapter.Config(**{"num_bands": 4} | fields))


def test_elements_are_those_of_numpy() -> None:
    module = adapter(
        num_axes=2, num_features=1, minimum=(-1.0, 10.0), maximum=(3.0, 20.0), max_resolution=(6, 9)
    )
    x = torch.tensor([[[-1.0, 10.0, 7.0], [3.0, 20.0, 8.0], [2.0, 12.5, 9.0]]], dtype=torch.float64)
    byte_array = module(x)
    scaled = np.array([[-1.0, -1.0], [1.0, 1.0], [0.5, -0.5]])
    np.testing.assert_allclose(byte_array.values[0, :, :2].numpy(), scaled)
    assert byte_array.values[0, :, 2].tolist() == [7.0, 8.0, 9.0]
    expected = [
        [
            wave(np.pi * point[axis] * (1 + band / 3 * (resolution / 2 - 1)))
            for wave in (np.sin, np.cos)
            for axis, resolution in ((0, 6), (1, 9))
            for band in range(4)
        ]
        for point in scaled
    ]
    np.testing.assert_allclose(byte_array.values[0, :, 3:].numpy(), expected, atol=1e-12)
    assert byte_array.grid is None and byte_array.num_content_channels == 3


def test_the_scale_is_that_of_all_axes() -> None:
    x = torch.randn(2, 5, 3)
    torch.testing.assert_close(adapter(scale=2.0)(x).values, adapter()(x / 2).values)
    assert adapter().position.max_resolution == (8, 8, 8)


def test_points_are_a_set() -> None:
    x = torch.randn(1, 6, 3)
    order = torch.randperm(6)
    assert torch.equal(adapter()(x[:, order]).values, adapter()(x).values[:, order])


def test_equal_points_and_flat_clouds_are_taken() -> None:
    x = torch.randn(1, 4, 3)
    x[:, :, 2] = 0.5
    x[:, 1] = x[:, 0]
    values = adapter()(x).values
    assert values.isfinite().all() and torch.equal(values[:, 0], values[:, 1])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            torch.zeros(1, 4, 2),
            r"must be \(batch, points, 3\), got 3 axes: \(1, 4, 2\)\. A point is 3 coordinates",
        ),
        (torch.zeros(4, 3), "got 2 axes"),
        (torch.zeros(1, 0, 3), "must not be empty along any axis"),
        (torch.zeros(1, 4, 3, dtype=torch.int64), "must be floating point, got torch.int64"),
        (torch.full((1, 4, 3), torch.nan), "12 values that are NaN"),
    ],
)
def test_bad_clouds_are_refused(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter()(x)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": 0.0}, "scale must be above 0"),
        ({"minimum": (0.0, 0.0, 0.0)}, "minimum and maximum together"),
        ({"minimum": (0.0,) * 3, "maximum": (1.0, 1.0, 0.0)}, "minimum must be below maximum on each axis"),
        ({"minimum": (0.0,), "maximum": (1.0,)}, "minimum must have a number for each of 3 axes"),
        ({"minimum": (0.0,) * 3, "maximum": (1.0,) * 3, "scale": 2.0}, "got both"),
        ({"max_resolution": (4, 4)}, "max_resolution must have a number for each of 3 axes"),
        ({"num_features": -1}, "num_features must be at least 0"),
        ({"num_axes": 0}, "num_axes must be at least 1"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter(**fields)
