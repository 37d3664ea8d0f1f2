"""The text adapter: embeddings, positions, lengths, masks, and what it refuses."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PerceiverConfig
from transformers.models.perceiver.modeling_perceiver import PerceiverTextPreprocessor

from perceiver_io.adapters.text import SequenceConvolutions, TextAdapter


def adapter(**fields: Any) -> TextAdapter:
    return TextAdapter(TextAdapter.Config(**{"vocab_size": 11, "max_length": 8, "num_channels": 6} | fields))


@pytest.mark.parametrize("length", [1, 5, 8])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_agrees_with_transformers(length: int, dtype: torch.dtype) -> None:
    reference = PerceiverTextPreprocessor(
        PerceiverConfig(vocab_size=11, max_position_embeddings=8, d_model=6)
    )
    module = adapter()
    module.load_state_dict(
        {
            "embedding.weight": reference.embeddings.weight,
            "position.table.weight": reference.position_embeddings.weight,
        }
    )
    ids = torch.randint(11, (3, length), dtype=dtype)
    byte_array = module(ids)
    assert torch.equal(byte_array.values, reference(ids)[0])
    assert byte_array.grid == (length,)
    assert byte_array.mask is None


def test_defaults_are_as_published() -> None:
    module = TextAdapter(TextAdapter.Config())
    assert {name: tuple(value.shape) for name, value in module.state_dict().items()} == {
        "embedding.weight": (262, 768),
        "position.table.weight": (2048, 768),
    }
    assert module.num_channels == module.num_content_channels == 768


def test_fourier_positions_stand_beside_the_embeddings() -> None:
    module = adapter(position="fourier", num_bands=3)
    assert set(module.state_dict()) == {"embedding.weight"}
    assert (module.num_content_channels, module.num_channels) == (6, 6 + 7)
    ids = torch.randint(11, (2, 5))
    values = module(ids).values
    assert torch.equal(values[..., :6], module.embedding.weight[ids])
    # By hand: eight places from -1 to 1, and three bands from 1 to half of eight.
    places = torch.tensor([-1 + 2 * place / 7 for place in range(5)])
    phases = math.pi * places[:, None] * torch.tensor([1.0, 2.5, 4.0])
    expected = torch.cat([places[:, None], phases.sin(), phases.cos()], dim=1)
    torch.testing.assert_close(values[:, :, 6:], expected.expand(2, -1, -1))


def test_a_place_has_the_same_features_in_sequences_of_any_length() -> None:
    module = adapter(position="fourier", num_bands=3)
    ids = torch.randint(11, (1, 8))
    whole = module(ids).values
    for length in (1, 3, 8):
        assert torch.equal(module(ids[:, :length]).values, whole[:, :length])


def test_decoders_may_be_tied_to_embeddings_that_have_positions_beside_them() -> None:
    module = adapter(position="fourier", num_bands=3)
    assert module.tied_embedding().weight.shape == (11, 6)


def test_decoders_may_use_the_embeddings() -> None:
    module = adapter()
    assert module.tied_embedding() is module.embedding
    assert module.tied_embedding().weight.shape == (11, 6)


@pytest.mark.parametrize("hidden", [-100, 11, 2**62])
def test_masked_ids_may_be_anything(hidden: int) -> None:
    ids = torch.tensor([[1, 2, hidden], [hidden, 4, 5]])
    mask = ids != hidden
    module = adapter()
    byte_array = module(ids, mask)
    assert byte_array.mask is mask
    expected = module.embedding.weight + module.position.table.weight[1]
    assert torch.equal(byte_array.values[:, 1], expected[torch.tensor([2, 4])])
    assert torch.equal(byte_array.values[mask], module(torch.where(mask, ids, 9)).values[mask])


def test_half_precision_models_give_half_precision_elements() -> None:
    assert adapter().to(torch.bfloat16)(torch.tensor([[1, 2]])).values.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (
            torch.tensor([[0, 11, -3]]),
            "must be from 0 to 10, got -3, 11. Use the tokenizer that belongs to the model",
        ),
        (torch.arange(20, 28)[None], "got 20, 21, 22, 23, 24, …"),
        (torch.zeros(1, 9, dtype=torch.int64), "9 tokens is longer than the model's 8. Truncate it"),
        (torch.zeros(5, dtype=torch.int64), r"must be \(batch, tokens\), got 1 axes: \(5,\)"),
        (torch.zeros(2, 5, 1, dtype=torch.int64), "got 3 axes"),
        (torch.zeros(2, 0, dtype=torch.int64), r"must not be empty along any axis, got \(2, 0\)"),
        (torch.zeros(2, 5), "must be int64 or int32, got torch.float32"),
        (torch.zeros(2, 5, dtype=torch.uint8), "must be int64 or int32, got torch.uint8"),
    ],
)
def test_bad_ids_are_refused(ids: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter()(ids)


@pytest.mark.parametrize("mask", [torch.ones(2, 4).bool(), torch.ones(2, 5), torch.ones(2, 5).long()])
def test_masks_that_do_not_fit_are_refused(mask: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be bool \(2, 5\), got"):
        adapter()(torch.zeros(2, 5, dtype=torch.int64), mask)


@pytest.mark.parametrize("name", ["vocab_size", "max_length", "num_channels", "num_bands"])
def test_bad_settings_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"TextAdapter.Config.{name} must be at least 1, got 0"):
        adapter(**{name: 0})


# Convolutions


def convolutional(**fields: Any) -> TextAdapter:
    return adapter(**{"features": "conv", "embedding_channels": 3, "kernel_size": 3} | fields)


def looped(
    convolutions: SequenceConvolutions, x_TE: NDArray[np.float64], real_T: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """One sequence, element by element."""
    reach = convolutions.kernel_size // 2
    for number, layer in enumerate(convolutions.layers):
        weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
        seen_TE = x_TE
        if number:
            norm = convolutions.norms[number - 1]
            centred = x_TE - x_TE.mean(1, keepdims=True)
            seen_TE = centred / np.sqrt(x_TE.var(1, keepdims=True) + norm.eps)
            seen_TE = seen_TE * norm.weight.detach().double().numpy() + norm.bias.detach().double().numpy()
        found_TC = np.empty((len(x_TE), len(bias)))
        for place in range(len(x_TE)):
            total_C = bias.copy()
            for offset in range(-reach, reach + 1):
                near = place + offset
                if 0 <= near < len(x_TE) and real_T[near]:
                    # The weights of a channel lie together, one for each offset.
                    total_C += weight[:, offset + reach :: convolutions.kernel_size] @ seen_TE[near]
            found_TC[place] = np.maximum(total_C, 0)
        x_TE = found_TC if number == 0 else x_TE + found_TC
    return x_TE * real_T[:, None]


@pytest.mark.parametrize(("kernel_size", "depth"), [(1, 1), (3, 1), (5, 2), (7, 3)])
def test_convolutions_agree_with_a_loop(kernel_size: int, depth: int) -> None:
    module = SequenceConvolutions(4, 6, kernel_size=kernel_size, depth=depth)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    x, mask = torch.randn(3, 8, 4), torch.ones(3, 8, dtype=torch.bool)
    mask[0, 5:] = mask[1, 2] = mask[1, :1] = False
    for given in (None, mask):
        expected = [
            looped(module, one.double().numpy(), np.ones(8, bool) if given is None else real.numpy())
            for one, real in zip(x, mask, strict=True)
        ]
        got = module(x, given).detach().double()
        torch.testing.assert_close(got, torch.from_numpy(np.stack(expected)), rtol=1e-5, atol=1e-5)


def test_the_shape_of_the_elements_does_not_depend_on_the_embeddings() -> None:
    module = convolutional(position="fourier", num_bands=3, num_convolutions=3)
    assert module.embedding.weight.shape == (11, 3)
    assert (module.num_content_channels, module.num_channels) == (6, 6 + 7)
    assert module(torch.zeros(2, 5, dtype=torch.int64)).values.shape == (2, 5, 13)
    # The widths: 3 in and 6 out, then 6 and 6, three tokens each; a norm before all but the first.
    assert sum(one.numel() for one in module.convolutions.parameters()) == 6 * 9 + 6 + 2 * (6 * 18 + 6 + 12)
    assert adapter(features="conv").embedding.weight.shape == (11, 6)


@torch.no_grad()
def test_a_token_reaches_as_far_as_the_convolutions() -> None:
    module = convolutional(max_length=16)  # two of three tokens: two places on either side
    ids = torch.randint(10, (1, 16))
    changed = ids.clone()
    changed[0, 7] = 10
    differs = (module(ids).values != module(changed).values).any(-1)[0]
    assert differs[5:10].any() and not differs[:5].any() and not differs[10:].any()


@pytest.mark.parametrize("position", ["learned", "fourier"])
@torch.no_grad()
def test_what_is_masked_changes_nothing_at_other_places(position: str) -> None:
    module = convolutional(position=position)
    ids = torch.randint(11, (2, 8))
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[0, 3] = mask[1, 5:] = False
    expected = module(ids, mask).values[mask]
    for hidden in (0, 10, -100, 2**62):
        assert torch.equal(module(torch.where(mask, ids, hidden), mask).values[mask], expected)


@pytest.mark.parametrize("position", ["learned", "fourier"])
@torch.no_grad()
def test_a_sequence_alone_is_as_in_a_padded_batch(position: str) -> None:
    module = convolutional(position=position)
    ids = torch.randint(11, (3, 8))
    lengths = [8, 3, 1]
    mask = torch.arange(8) < torch.tensor(lengths)[:, None]
    together = module(ids, mask).values
    for row, length in enumerate(lengths):
        alone = module(ids[row : row + 1, :length]).values
        torch.testing.assert_close(alone[0], together[row, :length], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": "pixels"}, "features"),
        ({"features": "conv", "kernel_size": 4}, "kernel_size must be odd, got 4"),
        ({"features": "conv", "kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"features": "conv", "num_convolutions": 0}, "num_convolutions must be at least 1, got 0"),
        ({"features": "conv", "embedding_channels": 0}, "embedding_channels must be at least 1, got 0"),
        ({"embedding_channels": 3}, "embedding_channels goes with features='conv'.* got 3 and 6"),
    ],
)
def test_bad_settings_of_convolutions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter(**fields)
    assert adapter(embedding_channels=6).embedding.weight.shape == (11, 6)


def test_fourier_places_go_on_past_the_longest() -> None:
    config = TextAdapter.Config(vocab_size=9, max_length=5, num_channels=4, position="fourier", num_bands=3)
    module = TextAdapter(config)
    ids = torch.randint(9, (2, 12))
    whole = module(ids).values
    assert whole[0, :, 4].tolist() == [-1 + place / 2 for place in range(12)]
    torch.testing.assert_close(module(ids[:, :7]).values, whole[:, :7])
