import pytest
import torch

from perceiver_io.ragged import pad_ragged


def test_samples_are_padded_to_the_largest_and_masked():
    batch, mask = pad_ragged([torch.ones(3, 2), torch.full((5, 2), 2.0)])
    assert batch.tolist() == [[[1, 1]] * 3 + [[0, 0]] * 2, [[2, 2]] * 5]
    assert mask is not None and mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5]


def test_equal_samples_need_no_mask():
    batch, mask = pad_ragged([torch.ones(4), torch.zeros(4)])
    assert batch.shape == (2, 4) and mask is None


def test_the_padded_size_is_a_multiple():
    batch, mask = pad_ragged([torch.ones(3), torch.ones(5)], multiples=[4], value=7)
    assert batch.shape == (2, 8) and batch[0, 3:].tolist() == [7] * 5
    assert mask is not None and mask.sum(1).tolist() == [3, 5]


def test_a_sample_that_lacks_the_input_is_wholly_masked():
    batch, mask = pad_ragged([None, torch.ones(2, 3, 4)], axes=(1, 2))
    assert batch.shape == (2, 2, 3, 4) and not batch[0].any()
    assert mask is not None and mask.shape == (2, 3, 4) and not mask[0].any() and mask[1].all()


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ([None, None], "None of the samples"),
        ([torch.ones(3, 2), torch.ones(3, 1)], "may differ along the axes"),
        ([torch.ones(3), torch.ones(3, 1)], "may differ along the axes"),
        ([torch.ones(3), torch.ones(3, dtype=torch.int64)], "may differ along the axes"),
        ([torch.ones(3), torch.ones(0)], "Sample 1 is empty"),
    ],
)
def test_what_cannot_be_padded_is_refused(samples, says):
    with pytest.raises(ValueError, match=says):
        pad_ragged(samples)
