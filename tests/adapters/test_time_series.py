"""The adapter of time series: times, what was measured, and what it refuses."""

from typing import Any

import pytest
import torch

from perceiver_io.adapters.time_series import TimeSeriesAdapter
from perceiver_io.position import fourier_features

NAN = torch.nan


def adapter(**fields: Any) -> TimeSeriesAdapter:
    settings = {"num_variables": 2, "time_range": (10.0, 30.0), "num_bands": 3}
    return TimeSeriesAdapter(TimeSeriesAdapter.Config(**settings | fields))


def test_content_says_what_was_measured() -> None:
    x = torch.tensor([[[10.0, 1.5, NAN], [15.0, NAN, NAN], [30.0, -2.0, 4.0]]])
    byte_array = adapter()(x)
    assert byte_array.values[0, :, :4].tolist() == [
        [1.5, 0.0, 1.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
        [-2.0, 4.0, 1.0, 1.0],
    ]
    assert byte_array.num_content_channels == 4
    expected = fourier_features(torch.tensor([[-1.0], [-0.5], [1.0]]), num_bands=3, max_resolution=(6,))
    torch.testing.assert_close(byte_array.values[0, :, 4:], expected)
    assert (
        byte_array.mask is not None and byte_array.mask.all()
    )  # when nothing was measured is something to know


def test_rows_of_nothing_but_nan_are_masked() -> None:
    x = torch.tensor([[[12.0, 1.0, 2.0], [NAN, NAN, NAN]]])
    byte_array = adapter()(x)
    assert byte_array.mask is not None and byte_array.mask.tolist() == [[True, False]]
    assert byte_array.values.isfinite().all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([[[NAN, 1.0, NAN]]]), "The times of the batch holds 1 values that are NaN"),
        (torch.tensor([[[torch.inf, 1.0, NAN]]]), "The times of the batch"),
        (torch.tensor([[[11.0, torch.inf, NAN]]]), "What was not measured is NaN, not infinite"),
        (torch.zeros(1, 4, 2), r"must be \(batch, times, 3\)"),
        (torch.zeros(1, 0, 3), "must not be empty"),
        (torch.zeros(1, 4, 3, dtype=torch.int64), "must be floating point"),
    ],
)
def test_bad_series_are_refused(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter()(x)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"time_range must be the first and a later time, got \(3.0, 3.0\)"):
        adapter(time_range=(3.0, 3.0))
    with pytest.raises(ValueError, match="num_variables must be at least 1"):
        adapter(num_variables=0)
