"""The adapter of feature vectors: as they are, with or without positions."""

from typing import Any

import pytest
import torch

from perceiver_io.adapters.features import FeaturesAdapter


def adapter(**fields: Any) -> FeaturesAdapter:
    return FeaturesAdapter(
        FeaturesAdapter.Config(**{"num_features": 3, "max_length": 5, "num_bands": 2} | fields)
    )


def test_vectors_alone_are_a_set() -> None:
    x = torch.randn(2, 4, 3)
    byte_array = adapter()(x)
    assert torch.equal(byte_array.values, x)
    assert byte_array.grid is None and byte_array.mask is None


def test_fourier_positions_go_on_past_the_longest() -> None:
    x = torch.randn(2, 9, 3)
    byte_array = adapter(position="fourier")(x)
    assert byte_array.grid == (9,)
    assert torch.equal(byte_array.values[..., :3], x)
    assert byte_array.values[1, :, 3].tolist() == [-1 + place / 2 for place in range(9)]


def test_learned_positions_are_the_first_rows() -> None:
    module = adapter(position="learned", position_channels=4)
    x = torch.randn(2, 3, 3)
    assert torch.equal(module(x).values[1, :, 3:], module.position.table.weight[:3])  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="positions for 5 elements, got 6"):
        module(torch.randn(1, 6, 3))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 4), r"must be \(batch, elements, 3\), got 2 axes"),
        (torch.zeros(2, 4, 2), r"got 3 axes: \(2, 4, 2\)"),
        (torch.zeros(2, 0, 3), "must not be empty"),
        (torch.zeros(2, 4, 3, dtype=torch.int64), "must be floating point"),
        (torch.full((1, 4, 3), torch.inf), "12 values that are NaN or infinite"),
    ],
)
def test_bad_features_are_refused(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter()(x)
