"""The resampler: against plain formulas with its own weights, and properties that any of its kinds has."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import perceiver_io as pio

SMALL: dict[str, Any] = {"channels": 12, "num_latents": 3, "depth": 2, "num_heads": 4, "widening_factor": 2}
KINDS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "grouped": {"num_kv_heads": 2, "head_channels": 5},
    "one key head": {"num_kv_heads": 1, "norm": "rms", "feed_forward": "swiglu"},
    "projected": {"latent_channels": 8, "output_channels": 10, "feed_forward": "geglu"},
    "gated projection": {"latent_channels": 8, "input_projection": "swiglu", "projection_channels": 7},
    "inputs alone": {"latent_channels": 8, "latents_among_keys": False, "input_projection": "none"},
    "norms last": {"norm_position": "after", "feed_forward": "relu"},
    "one norm": {"norm_position": "none", "feed_forward": "geglu", "feed_forward_bias": True},
    "normed queries and keys": {"qk_norm": True, "norm_eps": 1e-3},
    "pooled": {"num_pooled_latents": 2, "num_positions": 9},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def resampler(kind: str = "as it comes", **options: Any) -> pio.PerceiverResampler:
    """One whose biases and scales are random too."""
    made = pio.PerceiverResampler(**SMALL | KINDS[kind] | options)
    for parameter in made.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.3)
    return made.eval()


def mask_of(*lengths: int, size: int = 6) -> Tensor:
    return torch.arange(size) < torch.tensor(lengths)[:, None]


def normed(state: dict[str, Tensor], name: str, x: Tensor, options: dict[str, Any]) -> Tensor:
    weight, eps = state[f"{name}.weight"], options.get("norm_eps")
    if options.get("norm") == "rms":
        return x / (x.square().mean(-1, keepdim=True) + (eps or 1e-6)).sqrt() * weight
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (x.var(-1, keepdim=True, correction=0) + (eps or 1e-5)).sqrt() * weight
        + state[f"{name}.bias"]
    )


def gated(state: dict[str, Tensor], name: str, x: Tensor, activation: Any) -> Tensor:
    def layer(part: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.{part}.weight"].T + state.get(f"{name}.{part}.bias", 0)

    return layer("output", activation(layer("gate", x)) * layer("hidden", x))


def by_formula(state: dict[str, Tensor], x: Tensor, mask: Tensor, options: dict[str, Any]) -> Tensor:
    """One sample, (M, C), head after head and query after query."""
    x = x[mask]
    if "positions.weight" in state:
        x = x + state["positions.weight"][: len(mask)][mask]
    if options.get("input_projection") == "swiglu":
        x = gated(state, "input_projection", x, F.silu)
    elif "input_projection.weight" in state:
        x = x @ state["input_projection.weight"].T + state["input_projection.bias"]
    z = state["latents.weight"]
    if "num_pooled_latents" in options:
        pooled = normed(state, "pooled_latents.norm", x.mean(0), options)
        pooled = pooled @ state["pooled_latents.output.weight"].T + state["pooled_latents.output.bias"]
        z = torch.cat([pooled.reshape(-1, z.shape[1]), z])
    heads, groups = options["num_heads"], options.get("num_kv_heads", options["num_heads"])
    place = options.get("norm_position", "before")
    first, last = place == "before", place == "after"
    for i in range(options["depth"]):
        of = f"layers.{i}."
        asking = normed(state, of + "latent_norm", z, options) if first else z
        asked = normed(state, of + "input_norm", x, options) if first else x
        if options.get("latents_among_keys", True):
            asked = torch.cat([asked, asking])
        q, k, v = (
            of_all @ state[f"{of}attention.{part}.weight"].T
            for of_all, part in ((asking, "query"), (asked, "key"), (asked, "value"))
        )
        found = []
        for head in range(heads):
            group = head * groups // heads
            size = q.shape[1] // heads
            q_h = q[:, head * size : (head + 1) * size]
            k_h, v_h = (one[:, group * size : (group + 1) * size] for one in (k, v))
            if options.get("qk_norm"):
                q_h = normed(state, of + "attention.query_norm", q_h, options)
                k_h = normed(state, of + "attention.key_norm", k_h, options)
            shares = (q_h @ k_h.T / math.sqrt(size)).exp()
            found.append(shares / shares.sum(1, keepdim=True) @ v_h)
        z = z + torch.cat(found, dim=1) @ state[of + "attention.output.weight"].T
        z = normed(state, of + "latent_norm", z, options) if last else z
        inner = normed(state, of + "feed_forward_norm", z, options) if first else z
        kind = options.get("feed_forward", "gelu")
        if kind in ("swiglu", "geglu"):
            inner = gated(state, of + "feed_forward", inner, F.silu if kind == "swiglu" else F.gelu)
        else:
            hidden = {"gelu": F.gelu, "relu": F.relu}[kind](
                inner @ state[of + "feed_forward.hidden.weight"].T
            )
            inner = hidden @ state[of + "feed_forward.output.weight"].T
        z = normed(state, of + "feed_forward_norm", z + inner, options) if last else z + inner
    if "output_projection.weight" in state:
        z = z @ state["output_projection.weight"].T + state["output_projection.bias"]
    return z if last else normed(state, "norm", z, options)


def test_three_lines() -> None:
    resampler = pio.PerceiverResampler(channels=12, num_latents=4, depth=2, num_heads=2)
    features, mask = torch.randn(2, 50, 12), torch.rand(2, 50) > 0.5
    assert resampler(features, mask).shape == (2, 4, 12)


@kinds
def test_is_what_the_formulas_say(kind: str) -> None:
    ours = resampler(kind).double()
    features, mask = torch.randn(3, 6, 12, dtype=torch.float64), mask_of(6, 4, 1)
    options = SMALL | KINDS[kind]
    state = ours.state_dict()
    expected = torch.stack([by_formula(state, x, m, options) for x, m in zip(features, mask, strict=True)])
    with torch.no_grad():
        found = ours(features, mask)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert found.shape == (3, 3 + options.get("num_pooled_latents", 0), ours.output_channels)


@kinds
def test_what_is_masked_changes_nothing_and_padding_neither(kind: str) -> None:
    ours = resampler(kind)
    features, mask = torch.randn(2, 6, 12), torch.tensor([[1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]]).bool()
    with torch.no_grad():
        expected = ours(features, mask)
        other = torch.where(mask[..., None], features, torch.tensor([math.nan, 1e9, -math.inf] * 4))
        torch.testing.assert_close(ours(other, mask), expected, rtol=0, atol=0)
        padded = F.pad(features, (0, 0, 0, 3)), F.pad(mask, (0, 3))
        torch.testing.assert_close(ours(*padded), expected)
        torch.testing.assert_close(ours(features[1:, :5]), expected[1:])


@kinds
def test_every_parameter_gets_a_gradient_also_where_much_is_masked(kind: str) -> None:
    ours = resampler(kind)
    features = torch.randn(2, 6, 12, requires_grad=True)
    ours(features, mask_of(6, 2)).square().sum().backward()
    assert not [
        name for name, weight in ours.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    assert features.grad is not None and features.grad.isfinite().all()
    assert not features.grad[1, 2:].any() and features.grad[1, :2].all()


def test_gradients_are_those_of_the_function() -> None:
    ours = resampler("grouped", depth=1).double()
    features = torch.randn(1, 3, 12, dtype=torch.float64, requires_grad=True)
    latents = torch.randn(1, 2, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, z: ours(x, mask_of(2, size=3), latents=z), (features, latents))


def test_features_have_no_order_and_latents_have() -> None:
    ours = resampler()
    features, order, latent_order = torch.randn(2, 6, 12), torch.randperm(6), torch.tensor([2, 0, 1])
    with torch.no_grad():
        expected = ours(features)
        torch.testing.assert_close(ours(features[:, order]), expected)
        assert ours.latents is not None
        ours.latents.weight.copy_(ours.latents.weight[latent_order])
        torch.testing.assert_close(ours(features), expected[:, latent_order])
        assert (expected[:, 0] - expected[:, 1]).abs().max() > 0.01


def test_latents_see_each_other_only_among_the_keys() -> None:
    for among in (True, False):
        ours = resampler(latents_among_keys=among)
        features = torch.randn(1, 6, 12)
        with torch.no_grad():
            before = ours(features)
            assert ours.latents is not None
            ours.latents.weight[0] += torch.randn(12)
            moved = (ours(features) - before).abs().amax(dim=(0, 2))
        assert moved[0] > 1e-2 and (moved[1:] > 1e-4).all() == among and (among or not moved[1:].any())


def test_latents_of_each_sample_stand_before_the_learned() -> None:
    ours, features = resampler(), torch.randn(2, 6, 12)
    given = torch.randn(2, 2, 12)
    without = resampler(num_latents=0)
    without.load_state_dict({name: x for name, x in ours.state_dict().items() if name != "latents.weight"})
    assert ours.latents is not None
    every = torch.cat([given, ours.latents().expand(2, -1, -1)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(ours(features, latents=given), without(features, latents=every))
        alone = without(features[1:], latents=every[1:])
        torch.testing.assert_close(ours(features, latents=given)[1:], alone)
    with pytest.raises(ValueError, match="no latents of its own"):
        without(features)


def test_frames_are_read_together_and_media_apart() -> None:
    ours = resampler(num_frames=5, num_media=3)
    assert ours.frames is not None and ours.media is not None
    plain = resampler()
    plain.load_state_dict(
        {k: x for k, x in ours.state_dict().items() if k.split(".")[0] not in ("frames", "media")}
    )
    features, mask = torch.randn(2, 3, 4, 6, 12), torch.rand(2, 3, 4, 6) > 0.3
    given = torch.randn(2, 3, 1, 12)
    with torch.no_grad():
        found = ours(features, mask, latents=given)
        assert found.shape == (2, 3, 4, 12)
        for t in range(3):
            read = features[:, t] + ours.frames()[:4, None] + ours.media()[t]
            expected = plain(read.flatten(1, 2), mask[:, t].flatten(1), latents=given[:, t])
            torch.testing.assert_close(found[:, t], expected)
    frames_alone = resampler(num_frames=5)
    assert frames_alone(features[:, 0], mask[:, 0]).shape == (2, 3, 12)
    media_alone = resampler(num_media=3)
    assert media_alone(features[:, :2, 0]).shape == (2, 2, 3, 12)


@pytest.mark.parametrize("among", [True, False])
def test_a_medium_that_is_not_there_is_zeros(among: bool) -> None:
    ours = resampler(num_media=3, latents_among_keys=among)
    features = torch.randn(2, 3, 6, 12, requires_grad=True)
    mask = torch.ones(2, 3, 6, dtype=torch.bool)
    mask[1, 1:] = False
    found = ours(features, mask)
    assert not found[1, 1:].any()
    torch.testing.assert_close(found[mask.any(-1)], ours(features)[mask.any(-1)])
    found.square().sum().backward()
    assert features.grad is not None and features.grad.isfinite().all() and not features.grad[1, 1:].any()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in ours.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_computes_in_the_type_of_its_weights(dtype: torch.dtype) -> None:
    ours, features = resampler("pooled"), torch.randn(2, 6, 12)
    with torch.no_grad():
        expected = ours(features)
        found = ours.to(dtype)(features, latents=None)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.float(), expected, rtol=0.1, atol=0.1 if dtype == torch.bfloat16 else 1e-5
    )


def test_under_autocast() -> None:
    ours, features = resampler("grouped"), torch.randn(2, 6, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ours(features, mask_of(6, 3))
    torch.testing.assert_close(found.float(), ours(features, mask_of(6, 3)), rtol=0.1, atol=0.1)


def test_checkpointing_gives_the_same_gradients() -> None:
    ours, features = resampler().train(), torch.randn(2, 6, 12)
    twin = copy.deepcopy(ours)
    for layer in twin.layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    for one in (ours, twin):
        one(features).square().sum().backward()
    for a, b in zip(ours.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_dropout_is_for_training() -> None:
    ours, features = resampler(dropout=0.5, attention_dropout=0.5), torch.randn(2, 6, 12)
    assert torch.equal(ours(features), ours(features))
    ours.train()
    assert not torch.equal(ours(features), ours(features))


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiles_as_one_graph() -> None:
    ours = resampler("grouped", num_media=3, depth=1)
    compiled = torch.compile(ours, fullgraph=True, backend="eager", dynamic=True)
    for batch, size in ((2, 6), (3, 9)):
        features, mask = torch.randn(batch, 2, size, 12), torch.rand(batch, 2, size) > 0.2
        torch.testing.assert_close(compiled(features, mask), ours(features, mask))


@pytest.mark.parametrize("kind", ["grouped", "pooled"])
def test_one_exported_graph_for_all_sizes(kind: str) -> None:
    ours = resampler(kind, depth=1)
    sizes = {0: Dim("batch"), 1: Dim("size", max=9)}
    with torch.no_grad():
        program = torch.export.export(
            ours, (torch.randn(2, 6, 12), mask_of(6, 3)), dynamic_shapes=(sizes, sizes), strict=False
        )
    graph = program.module()
    for batch, size in ((1, 4), (3, 9)):
        features, mask = torch.randn(batch, size, 12), torch.rand(batch, size) > 0.2
        mask[:, 0] = True
        torch.testing.assert_close(graph(features, mask), ours(features, mask))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be an integer of at least 1, got 0"),
        ({"num_latents": -1}, "num_latents must be an integer of at least 0, got -1"),
        ({"depth": 1.5}, "depth must be an integer"),
        ({"num_heads": 5}, "12 latent channels cannot be divided among 5 heads: .* head_channels"),
        ({"num_kv_heads": 3}, "num_heads must be a multiple of num_kv_heads, got 4 and 3"),
        ({"feed_forward": "tanh"}, "feed_forward must be one of gelu, .*swiglu, got 'tanh'"),
        ({"norm_position": "first"}, "norm_position must be one of before, after, none, got 'first'"),
        ({"norm": "batch"}, "norm must be one of layer, rms, got 'batch'"),
        ({"norm_eps": 0.0}, "norm_eps must be above zero"),
        ({"widening_factor": 0}, "widening_factor must be above zero"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        (
            {"input_projection": "none", "latent_channels": 8},
            "Latents of 8 channels .* inputs of 12 .*latents_among",
        ),
        ({"projection_channels": 7}, "projection_channels is for input_projection=.swiglu., got 'none'"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pio.PerceiverResampler(**SMALL | options)


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {"features": torch.ones(2, 3, 4, 12)}, r"Features must be \(samples, features, 12\).*num_media"),
        ({}, {"features": torch.ones(2, 6, 11)}, r"\(samples, features, 12\), got 3 axes: \(2, 6, 11\)"),
        ({}, {"features": torch.ones(2, 0, 12)}, "must not be empty"),
        ({}, {"features": torch.ones(2, 6, 12, dtype=torch.int64)}, "must be floating point, got torch.int64"),
        ({}, {"features": torch.full((2, 6, 12), math.nan)}, "The features holds 144 values that are NaN"),
        ({}, {"mask": torch.ones(2, 6)}, r"The mask of features .* must be bool \(2, 6\), got torch.float32"),
        ({}, {"mask": torch.ones(6).bool()}, r"must be bool \(2, 6\), got torch.bool \(6,\)"),
        ({}, {"mask": mask_of(0, 6)}, r"samples \[0\] have none"),
        ({}, {"latents": torch.ones(1, 2, 12)}, r"Latents must be \(2, latents, 12\), got 3 axes: \(1, 2, 12\)"),
        ({}, {"latents": torch.full((2, 1, 12), math.inf)}, "The latents holds 24"),
        ({"num_positions": 5}, {}, "learned positions for 5 features, got 6.*num_positions"),
        ({"num_media": 2}, {"features": torch.ones(2, 3, 6, 12)}, "learned positions for 2 media, got 3.*num_media"),
        ({"num_frames": 2}, {"features": torch.ones(2, 3, 6, 12)}, "positions for 2 frames, got 3.*num_frames"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit(options: dict[str, Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resampler(**options)(**{"features": torch.ones(2, 6, 12)} | arguments)


@kinds
def test_every_layer_is_called_once(kind: str) -> None:
    """So that hooks, adapters and quantised layers are heard."""
    ours = resampler(kind)
    calls: dict[str, int] = {}
    for name, module in ours.named_modules():
        if isinstance(module, nn.Linear | nn.LayerNorm | nn.RMSNorm):
            calls[name] = 0
            module.register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls[name] + 1))
    ours(torch.randn(2, 6, 12), mask_of(6, 3))
    assert set(calls.values()) == {1}, calls


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore:.*quantize_dynamic")
def test_lora_and_int8_change_what_it_computes() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    ours, features = resampler("grouped"), torch.randn(2, 6, 12)
    with torch.no_grad():
        expected = ours(features)
        quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(ours), {nn.Linear})
        rounded = quantised(features)
    assert not torch.equal(rounded, expected)
    torch.testing.assert_close(rounded, expected, rtol=0.1, atol=0.1)
    adapted = inject_adapter_in_model(
        LoraConfig(target_modules="all-linear", r=2, init_lora_weights=False), ours
    )
    assert not torch.allclose(adapted(features), expected, atol=1e-3)
    adapted(features).sum().backward()
    learned = {name for name, weight in adapted.named_parameters() if weight.grad is not None}
    assert learned and all("lora_" in name for name in learned)
