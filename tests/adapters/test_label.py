"""The label adapter: probabilities, indices, masks, and what it refuses."""

import pytest
import torch
from transformers import PerceiverConfig
from transformers.models.perceiver.modeling_perceiver import PerceiverOneHotPreprocessor

from perceiver_io.adapters.label import LabelAdapter


def adapter(num_classes: int = 4) -> LabelAdapter:
    return LabelAdapter(LabelAdapter.Config(num_classes=num_classes))


@pytest.mark.parametrize("labels", [torch.eye(4)[[2, 0]], torch.zeros(2, 4), torch.rand(2, 4)])
def test_agrees_with_transformers(labels: torch.Tensor) -> None:
    reference = PerceiverOneHotPreprocessor(PerceiverConfig(num_labels=4))
    byte_array = adapter()(labels)
    assert torch.equal(byte_array.values, reference(labels)[0])
    assert byte_array.grid == (1,)
    assert byte_array.num_content_channels == adapter().num_channels == reference.num_channels


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_indices_become_one_hot(dtype: torch.dtype) -> None:
    values = adapter()(torch.tensor([3, 0, 1], dtype=dtype)).values
    assert values.tolist() == [[[0, 0, 0, 1]], [[1, 0, 0, 0]], [[0, 1, 0, 0]]]


def test_it_has_nothing_to_save() -> None:
    assert not adapter().state_dict() and not list(adapter().buffers())


def test_every_input_has_one_element() -> None:
    assert LabelAdapter.num_elements == 1


@pytest.mark.parametrize("labels", [torch.tensor([2, -100]), torch.tensor([[0, 0, 1, 0], [torch.nan] * 4])])
def test_masked_labels_are_zeros_whatever_they_were(labels: torch.Tensor) -> None:
    byte_array = adapter()(labels, torch.tensor([True, False]))
    assert byte_array.values.tolist() == [[[0, 0, 1, 0]], [[0, 0, 0, 0]]]
    assert byte_array.mask is not None
    assert byte_array.mask.tolist() == [[True], [False]]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 5), r"must be \(batch, 4\), got 2 axes: \(2, 5\)\. Or give \(batch,\) int64 class"),
        (torch.zeros(2, 1, 4), "got 3 axes"),
        (torch.zeros(0, 4), "must not be empty"),
        (
            torch.zeros(2, 4, dtype=torch.int64),
            r"floating point, got torch.int64\. Call `\.float\(\)` on them",
        ),
        (torch.full((2, 4), torch.nan), "8 values that are NaN"),
        (
            torch.tensor([4, -1, 0]),
            r"must be from 0 to 3, got -1, 4\. Or give \(batch, 4\) floating-point labels",
        ),
        (torch.zeros(2), "Class indices must be int64 or int32, got torch.float32"),
        (torch.tensor(1), r"Class indices must be \(batch,\), got 0 axes: \(\)"),
        (torch.zeros(0, dtype=torch.int64), "must not be empty"),
    ],
)
def test_bad_labels_are_refused(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter()(x)


@pytest.mark.parametrize("mask", [torch.ones(2, 4).bool(), torch.ones(2)])
def test_masks_that_do_not_fit_are_refused(mask: torch.Tensor) -> None:
    for labels in (torch.zeros(2, 4), torch.tensor([1, 2])):
        with pytest.raises(ValueError, match=r"must be bool \(2,\), got"):
            adapter()(labels, mask)


def test_no_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"LabelAdapter.Config.num_classes must be at least 1, got 0"):
        adapter(0)
