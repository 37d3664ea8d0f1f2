"""Published resamplers, read and written back: against `transformers`' own classes, and stored values of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Idefics2Config, IdeficsConfig
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler
from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig
from transformers.models.idefics2.modeling_idefics2 import Idefics2Connector, Idefics2PerceiverResampler

import perceiver_io as pio
from perceiver_io.resampler.layouts import LAYOUTS
from tests.resampler.formula import numbers, weights

GOLDENS = json.loads((Path(__file__).parents[1] / "data" / "resamplers.json").read_text())


def randomised(module: nn.Module) -> nn.Module:
    """All weights random, norms' too, so that equal outputs mean something."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


def assert_written_back(resampler: pio.PerceiverResampler, layout: str, state: dict[str, Tensor]) -> None:
    back = resampler.to_state_dict(layout)
    assert back.keys() == state.keys()
    assert all(
        torch.equal(back[name], tensor) and back[name].dtype == tensor.dtype for name, tensor in state.items()
    )


@pytest.mark.parametrize("name", GOLDENS)
def test_computes_what_the_published_code_computed(name: str) -> None:
    golden = GOLDENS[name]
    state = weights(golden["shapes"])
    resampler = pio.PerceiverResampler.from_state_dict(state, head_channels=8).eval()
    features = numbers(golden["input"], 0)
    if name == "open-flamingo":  # without embeddings, its axes of media and frames are of no use
        features = features[:, 0, 0]
    with torch.no_grad():
        found = resampler(features)
    expected = torch.tensor(golden["values"]).reshape(golden["output"]).reshape(found.shape)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.3
    assert_written_back(resampler, golden["layout"], state)


def idefics2(**fields: Any) -> Idefics2PerceiverConfig:
    sizes = {"hidden_size": 48, "resampler_n_latents": 5, "resampler_depth": 3, "resampler_n_heads": 6}
    return Idefics2PerceiverConfig(**sizes | {"resampler_head_dim": 8, "num_key_value_heads": 2} | fields)


@pytest.mark.parametrize("num_kv_heads", [1, 2, 6])
def test_idefics2(num_kv_heads: int) -> None:
    theirs = randomised(Idefics2PerceiverResampler(idefics2(num_key_value_heads=num_kv_heads)))
    ours = pio.PerceiverResampler.from_state_dict(theirs.state_dict(), layout="idefics2", head_channels=8)
    features, mask = torch.randn(3, 9, 48), torch.arange(9) < torch.tensor([[9], [4], [1]])
    with torch.no_grad():
        expected = theirs(features, mask)
        torch.testing.assert_close(ours.eval()(features, mask), expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.1
    assert_written_back(ours, "idefics2", theirs.state_dict())


def test_idefics2_at_its_own_head_size_and_in_bfloat16() -> None:
    theirs = randomised(Idefics2PerceiverResampler(idefics2(resampler_n_heads=2, resampler_head_dim=96)))
    theirs = theirs.to(torch.bfloat16)
    ours = pio.PerceiverResampler.from_state_dict(theirs.state_dict())
    assert_written_back(ours, "idefics2", theirs.state_dict())
    features, mask = torch.randn(2, 9, 48, dtype=torch.bfloat16), torch.ones(2, 9, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(ours(features), theirs(features, mask), rtol=0.05, atol=0.05)


def test_idefics2_with_its_projection_as_a_part_of_a_model() -> None:
    config = Idefics2Config(
        vision_config={"hidden_size": 20},
        text_config={"hidden_size": 48, "intermediate_size": 36, "model_type": "mistral"},
        perceiver_config=idefics2().to_dict(),
    )
    theirs = randomised(Idefics2Connector(config))
    state = {f"model.connector.{name}": tensor for name, tensor in theirs.state_dict().items()}
    state["model.text_model.norm.weight"] = torch.ones(48)
    ours = pio.PerceiverResampler.from_state_dict(state, prefix="model.connector.", head_channels=8).eval()
    assert ours.channels == 20 and ours.output_channels == 48
    features, mask = torch.randn(2, 9, 20), torch.arange(9) < torch.tensor([[9], [4]])
    with torch.no_grad():
        torch.testing.assert_close(ours(features, mask), theirs(features, mask), rtol=0, atol=1e-5)
    assert_written_back(ours, "idefics2-connector", theirs.state_dict())


@pytest.mark.parametrize("qk_layer_norms", [False, True])
def test_idefics(qk_layer_norms: bool) -> None:
    config = IdeficsConfig(
        vision_config={"embed_dim": 24},
        perceiver_config={"qk_layer_norms_perceiver": qk_layer_norms},
    )
    theirs = randomised(IdeficsPerceiverResampler(config, 24, depth=2, n_heads=3, head_dim=8, n_latents=5))
    ours = pio.PerceiverResampler.from_state_dict(theirs.state_dict(), head_channels=8).eval()
    features = torch.randn(2, 9, 24)
    with torch.no_grad():
        expected = theirs(features)
        torch.testing.assert_close(ours(features), expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.1
    assert_written_back(ours, "idefics", theirs.state_dict())


def test_ip_adapter_of_faces_is_given_its_latents() -> None:
    """Its resampler for faces has the same names but for the latents, which are made of a face's identity."""
    shapes = {name: shape for name, shape in GOLDENS["ip-adapter"]["shapes"].items() if name != "latents"}
    whole = pio.PerceiverResampler.from_state_dict(weights(GOLDENS["ip-adapter"]["shapes"]), head_channels=8)
    state = {
        f"image_proj.perceiver_resampler.{name}": x for name, x in whole.to_state_dict("ip-adapter").items()
    }
    state.pop("image_proj.perceiver_resampler.latents")
    faces = pio.PerceiverResampler.from_state_dict(
        state, prefix="image_proj.perceiver_resampler.", head_channels=8
    )
    features = torch.randn(2, 5, 12)
    assert whole.latents is not None
    latents = whole.latents().expand(2, -1, -1)
    torch.testing.assert_close(faces(features, latents=latents), whole(features))
    assert faces.to_state_dict("ip-adapter").keys() == shapes.keys()


def flamingo() -> dict[str, Tensor]:
    return weights(GOLDENS["flamingo-pytorch"]["shapes"])


def test_what_is_read_is_a_copy_and_one_for_training() -> None:
    state = flamingo()
    resampler = pio.PerceiverResampler.from_state_dict(state, head_channels=8)
    before = {name: tensor.clone() for name, tensor in state.items()}
    for parameter in resampler.parameters():
        assert parameter.requires_grad
        nn.init.zeros_(parameter)
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_all_that_does_not_fit_is_named() -> None:
    state = flamingo()
    del state["layers.1.0.to_out.weight"]
    state["layers.0.1.0.weight"] = torch.ones(5)
    state["layers.0.0.norm_media.bias"] = state["layers.0.0.norm_media.bias"][:-1]
    with pytest.raises(ValueError) as error:
        pio.PerceiverResampler.from_state_dict(state, head_channels=8)
    message = str(error.value)
    for part in (
        "missing tensor: layers.1.0.to_out.weight",
        r"wrong shape: layers.0.1.0.weight has (5,)",
        "(15,)",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"text.weight": torch.ones(3)}, {}, "no tensors text.weight. Say layout=.* prefix="),
        ({}, {"layout": "flamingo"}, "no layout 'flamingo'. Known: flamingo-pytorch, open-flamingo"),
        ({}, {"prefix": "perceiver."}, "The tensors none are of no resampler"),
        ({}, {"head_channels": None}, "Queries of 16 channels and keys of 16 .* 64 channels. Say head_channels="),
        ({}, {"layout": "idefics2"}, "no tensors layers.0.0.norm_.* and 18 more"),
        ({"media_pos_emb": torch.ones(4, 16)}, {}, r"media_pos_emb must have 3 axes.*\(4, 16\)"),
        ({"layers.0.0.to_kv.weight": torch.ones(31, 16)}, {}, r"to_kv.weight cannot be of the shape \(31, 16\)"),
        ({"latents": torch.ones(3, 0)}, {}, r"latents cannot be of the shape \(3, 0\)"),
        ({"latents": [1.0]}, {}, "must be tensors by name"),
        ({"layers.0.0.to_q.weight": None}, {}, "missing tensor: layers.0.0.to_q.weight"),
        ({"layers.7.0.to_q.weight": torch.ones(16, 16)}, {}, "unexpected tensor: layers.7.0.to_q.weight"),
        ({"layers.99999999.1.0.weight": torch.ones(16)}, {}, "unexpected tensor: layers.99999999.1.0.weight"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(changes: dict[str, Any], arguments: dict[str, Any], message: str) -> None:
    state = {name: tensor for name, tensor in (flamingo() | changes).items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        pio.PerceiverResampler.from_state_dict(state, **{"head_channels": 8} | arguments)


@pytest.mark.parametrize(
    ("options", "layout", "message"),
    [
        ({"feed_forward": "geglu"}, "idefics2", "have feed_forward='swiglu', norm='rms', got "),
        ({"feed_forward": "relu", "norm_position": "after"}, "idefics", "have norm_position='before', got"),
        ({"feed_forward_bias": True}, "open-flamingo", "have feed_forward_bias=False"),
        ({"latents_among_keys": False}, "open-flamingo", "have latents_among_keys=True"),
        ({}, "flamingo-pytorch", "have media.weight; this one has not"),
        ({"input_projection": "linear"}, "ip-adapter", "have output_projection.weight; this one has not"),
        (
            {"output_channels": 5},
            "open-flamingo",
            "no name for output_projection.weight, output_projection.bias",
        ),
        ({}, "flamingo", "There is no layout 'flamingo'"),
    ],
)
def test_what_a_layout_cannot_say_is_not_written(options: dict[str, Any], layout: str, message: str) -> None:
    resampler = pio.PerceiverResampler(12, 3, 1, num_heads=2, **options)
    with pytest.raises(ValueError, match=message):
        resampler.to_state_dict(layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_told_by_its_names(layout: str) -> None:
    needed = {
        "flamingo-pytorch": {"num_media": 2},
        "ip-adapter": {"input_projection": "linear", "output_channels": 5},
    }
    options = {**needed.get(layout, {}), **LAYOUTS[layout].options}
    resampler = pio.PerceiverResampler(12, 3, 2, num_heads=2, num_kv_heads=2, **options)
    state = resampler.to_state_dict(layout)
    again = pio.PerceiverResampler.from_state_dict(state, head_channels=6)
    assert_written_back(again, layout, state)
    features = torch.randn(2, *((2, 4) if layout == "flamingo-pytorch" else (4,)), 12)
    with torch.no_grad():
        assert torch.equal(again(features), resampler(features))
