"""Initial values of the two leaves."""

import pytest
import torch

from perceiver_io.layers import LearnedArray, Linear


@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_linear_keeps_unit_variance_times_gain(gain: float) -> None:
    layer = Linear(64, 512, gain=gain)
    assert layer.weight.std().item() == pytest.approx(gain / 8, rel=0.03)
    assert layer.weight.abs().max() <= 2 * gain / 8 / 0.8796
    assert not layer.bias.any()
    assert layer(torch.randn(256, 64)).std().item() == pytest.approx(gain, rel=0.05)


def test_linear_gives_each_channel_its_share() -> None:
    layer = Linear(4, 2000, input_shares=(0.7, 0.2, 0.1, 0.0))
    variances = layer.weight.var(dim=0).tolist()
    assert variances == pytest.approx([0.7, 0.2, 0.1, 0.0], rel=0.1)
    assert layer(torch.randn(2000, 4)).std().item() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("std", [0.02, 0.5])
def test_learned_array_starts_as_a_normal(std: float) -> None:
    array = LearnedArray(128, 64, std=std)
    assert array().shape == (128, 64)
    assert array.weight.std().item() == pytest.approx(std, rel=0.05)


def test_reset_draws_new_values() -> None:
    for module in (Linear(3, 4), LearnedArray(3, 4)):
        before = module.weight.detach().clone()
        module.reset_parameters()
        assert not torch.equal(before, module.weight)
