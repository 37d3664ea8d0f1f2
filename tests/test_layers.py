"""Initial values of the two leaves."""

import copy
import pickle

import pytest
import torch
from torch import nn

from perceiver_io.layers import LearnedArray, linear, reset_parameters


@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_linear_keeps_unit_variance_times_gain(gain: float) -> None:
    layer = linear(64, 512, gain=gain)
    assert layer.weight.std().item() == pytest.approx(gain / 8, rel=0.03)
    assert layer.weight.abs().max() <= 2 * gain / 8 / 0.8796
    assert not layer.bias.any()
    assert layer(torch.randn(256, 64)).std().item() == pytest.approx(gain, rel=0.05)


def test_linear_gives_each_channel_its_share() -> None:
    layer = linear(4, 2000, input_shares=(0.7, 0.2, 0.1, 0.0))
    variances = layer.weight.var(dim=0).tolist()
    assert variances == pytest.approx([0.7, 0.2, 0.1, 0.0], rel=0.1)
    assert layer(torch.randn(2000, 4)).std().item() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("std", [0.02, 0.5])
def test_learned_array_starts_as_a_normal(std: float) -> None:
    array = LearnedArray(128, 64, std=std)
    assert array().shape == (128, 64)
    assert array.weight.std().item() == pytest.approx(std, rel=0.05)


def test_reset_draws_new_values() -> None:
    for module in (linear(3, 4), LearnedArray(3, 4)):
        before = module.weight.detach().clone()
        reset_parameters(module)
        assert not torch.equal(before, module.weight)


def test_linear_is_what_tools_look_for_and_copies_start_alike() -> None:
    layer = linear(4, 2000, input_shares=(0.7, 0.2, 0.1, 0.0))
    assert type(layer) is nn.Linear
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin.weight, layer.weight)
        reset_parameters(twin)
        assert twin.weight.var(dim=0).tolist() == pytest.approx([0.7, 0.2, 0.1, 0.0], rel=0.1)
    with torch.device("meta"):
        assert linear(2, 3).weight.is_meta


def test_layers_of_others_start_as_they_say() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 4)
    torch.manual_seed(0)
    twin = nn.Linear(3, 4)
    nn.init.zeros_(twin.weight)
    torch.manual_seed(0)
    reset_parameters(twin)
    assert torch.equal(twin.weight, layer.weight)
    reset_parameters(nn.GELU())
