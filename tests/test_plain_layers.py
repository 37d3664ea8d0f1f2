"""A layer is called, or nobody can tell: hooks, LoRA, int8 and the like do in folded layers what they do in others."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

from perceiver_io.adapters.text import SequenceConvolutions
from perceiver_io.attention import FeedForward, MultiHeadAttention
from perceiver_io.brackets import Layers
from perceiver_io.cross_attention import CrossAttention
from perceiver_io.layers import LearnedArray, TiedOutput, linear
from perceiver_io.plain import has_hooks, is_plain
from perceiver_io.position import FourierPositionEncoding, LearnedPositionEncoding
from tests.small_models import CONFIGS, arguments, core, dense_points, model, outputs

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated"
)  # peft asks for it

NOT_CALLED = (
    nn.ModuleList,
    nn.ModuleDict,
    FourierPositionEncoding,
    LearnedPositionEncoding,
)  # their parts are

DENSE = ["mlm", "flow", "multimodal"]


def linear_layers(module: nn.Module) -> dict[str, nn.Linear]:
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}


@contextmanager
def recorded(modules: dict[str, nn.Module]) -> Iterator[Counter[str]]:
    """Counts how often each of the modules is called, by forward hooks."""
    calls: Counter[str] = Counter()
    handles = [
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
        for name, module in modules.items()
    ]
    yield calls
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("name", CONFIGS)
def test_hooks_on_all_modules_fire_and_change_nothing(name: str) -> None:
    """On each linear layer alone, and on all modules at once."""
    made, given = model(name), arguments(name)
    with torch.no_grad():
        expected = outputs(made(**given))
        everything = {
            path: module
            for path, module in made.named_modules()
            if path and not isinstance(module, NOT_CALLED)
        }
        with recorded(everything) as calls:
            torch.testing.assert_close(outputs(made(**given)), expected, atol=1e-5, rtol=1e-4)
        assert set(everything) - set(calls) == unused(made)
        for path, layer in linear_layers(made).items():
            with recorded({path: layer}) as calls:
                torch.testing.assert_close(outputs(made(**given)), expected, atol=1e-5, rtol=1e-4)
            assert calls[path], path


def unused(made: nn.Module) -> set[str]:
    """Mask tokens that stand for nothing in this batch."""
    packer = core(made).packer
    idle = {name for name, probability in packer.probabilities.items() if not probability}
    prefix = next(path for path, module in made.named_modules() if module is packer)
    return {f"{prefix}.mask_tokens.{name}" for name in idle}


@pytest.mark.parametrize("kind", ["pre", "backward", "global", "replaced"])
def test_every_kind_of_hook_is_one(kind: str) -> None:
    module = CrossAttention(query_channels=6, input_channels=4, num_heads=1).eval()
    seen: list[str] = []
    layer = module.attention.key  # with many inputs, its weights go to the queries
    assert module.attention.brackets(num_queries=1, num_inputs=500).logits == "queries"
    if kind == "pre":
        handle: Any = layer.register_forward_pre_hook(lambda *_: seen.append(kind))
    elif kind == "backward":
        handle = layer.register_full_backward_hook(lambda *_: seen.append(kind))
    elif kind == "global":
        handle = nn.modules.module.register_module_forward_hook(
            lambda called, *_: seen.append(kind) if called is layer else None
        )
    else:
        forward = layer.forward
        layer.forward = lambda x: seen.append(kind) or forward(x)
    module(torch.randn(2, 1, 6, requires_grad=True), torch.randn(2, 500, 4)).sum().backward()
    assert seen == [kind]
    if kind == "global":
        handle.remove()


def adapted(name: str) -> Any:
    """The model with LoRA of random A and B on all linear layers."""
    config = LoraConfig(target_modules="all-linear", r=3, lora_alpha=6, init_lora_weights=False)
    return get_peft_model(model(name), config)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_lora_is_its_merged_model(name: str, training: bool) -> None:
    given = arguments(name)
    adapter = adapted(name)
    wrapped = {path for path, module in adapter.named_modules() if hasattr(module, "lora_A")}
    assert len(wrapped) == len(linear_layers(model(name)))
    plain = outputs(model(name)(**given))
    adapter.train(training)
    state = copy.deepcopy(adapter.state_dict())  # batch norm learns in training
    found = outputs(adapter(**given))
    points = dense_points(adapter)
    at_points = (
        core(adapter).decode(core(adapter).encode(*inputs(name, given)), points=points) if points else {}
    )
    loss = found["loss"]
    loss.backward()
    lora = {path: p for path, p in adapter.named_parameters() if "lora_" in path}
    assert [path for path, p in lora.items() if p.grad is None or not p.grad.any()] == []
    adapter.load_state_dict(state)
    merged = adapter.merge_and_unload()
    assert not any("lora" in path for path, _ in merged.named_modules())
    expected = outputs(merged(**given))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert max((found[key] - plain[key]).abs().max() for key in plain) > 0.1  # it says something
    if points:
        theirs = core(merged).decode(core(merged).encode(*inputs(name, given)), points=points)
        torch.testing.assert_close(at_points, theirs, atol=1e-5, rtol=1e-5)


def inputs(name: str, given: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the core is given."""
    if name == "mlm":
        return {"text": given["input_ids"]}, {"text": given["attention_mask"]}
    return {key: x for key, x in given.items() if name == "multimodal" or key == "frames"}, {}


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("plug", ["lora", "hooks", "int8"])
def test_a_point_is_the_same_alone_and_in_the_whole_whatever_is_plugged_in(plug: str, name: str) -> None:
    made: Any = adapted(name) if plug == "lora" else model(name)
    if plug == "hooks":  # that change what the layers give
        for layer in linear_layers(made).values():
            layer.register_forward_hook(lambda _module, _arguments, output: output * 1.25)
    if plug == "int8":
        quantize_(made, Int8WeightOnlyConfig())
    made, perceiver = made.eval(), core(made)
    with torch.no_grad():
        encoded = perceiver.encode(*inputs(name, arguments(name)))
        for output in dense_points(made):
            whole = perceiver.decode(encoded, [output])[output]
            grid = perceiver.decoders[output].query_grid(encoded)
            every = torch.arange(torch.Size(grid).numel())
            all_points = perceiver.decode(encoded, points={output: every})[output]
            assert sorted(all_points.flatten().tolist()) == pytest.approx(
                sorted(whole.flatten().tolist()), abs=1e-5, rel=1e-4
            )
            few = perceiver.decode(encoded, points={output: torch.tensor([5])})[output]
            torch.testing.assert_close(few, all_points[:, 5:6], atol=1e-5, rtol=1e-4)
            chunked = perceiver.decode(encoded, points={output: every}, chunk_size=7)[output]
            torch.testing.assert_close(chunked, all_points, atol=1e-5, rtol=1e-4)


QUANTISED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "quantize_dynamic": lambda made: torch.ao.quantization.quantize_dynamic(
        made, {nn.Linear}, dtype=torch.qint8
    ),
    "int8 weights": lambda made: quantize_(made, Int8WeightOnlyConfig()) or made,
    "int8": lambda made: quantize_(made, Int8DynamicActivationInt8WeightConfig()) or made,
}


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore:.*quantize_dynamic")
@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("name", CONFIGS)
def test_quantised_models_convert_every_linear_layer_and_stay_near(name: str, kind: str) -> None:
    made, given = model(name), arguments(name)
    with torch.no_grad():
        expected = outputs(made(**given))
        quantised = QUANTISED[kind](copy.deepcopy(made))
        left = [path for path, layer in linear_layers(quantised).items() if is_plain(layer)]
        assert left == []
        found = outputs(quantised(**given))
    for key, value in expected.items():
        scale = value.std() if value.numel() > 1 else value.abs()
        error = (found[key] - value).abs().mean() / scale
        assert 0 < error < 0.25, (key, error)


@pytest.mark.parametrize("name", DENSE)
def test_parametrised_layers_are_computed(name: str) -> None:
    """Weight norm with its length doubled: twice the weights."""
    made, given = model(name), arguments(name)
    twin = copy.deepcopy(made)
    with torch.no_grad():
        for path, layer in linear_layers(made).items():
            if path.endswith(("attention.output", "feed_forward.output", "attention.query", "attention.key")):
                layer.weight.mul_(2)
                other = parametrizations.weight_norm(twin.get_submodule(path))
                other.parametrizations.weight.original0.mul_(2)
        torch.testing.assert_close(outputs(twin(**given)), outputs(made(**given)), atol=1e-4, rtol=1e-4)


def test_attention_maps_are_those_of_the_layers_that_are_there() -> None:
    """With LoRA, the maps of the merged model; with int8, weights that are what the encoder uses."""
    given = arguments("fourier")["pixel_values"]
    adapter = adapted("fourier").eval()
    (found,) = core(adapter).attention_maps({"image": given})
    merged = adapter.merge_and_unload()
    (expected,) = core(merged).attention_maps({"image": given})
    for part in ("weights", "content", "position"):
        torch.testing.assert_close(
            getattr(found, part)["image"], getattr(expected, part)["image"], atol=1e-4, rtol=1e-4
        )
    torch.testing.assert_close(found.bias, expected.bias, atol=1e-4, rtol=1e-4)


def test_attention_maps_sum_to_the_logits_of_a_layer_that_is_not_linear() -> None:
    made = model("fourier")
    attend = core(made).encoder.cross_attends[0]
    expected: list[Tensor] = []
    attend.attention.key.register_forward_hook(lambda _module, _arguments, output: output.round(decimals=1))
    attend.input_norm.register_forward_hook(lambda _module, _arguments, output: output.tanh())
    given = arguments("fourier")["pixel_values"]
    (found,) = core(made).attention_maps({"image": given})
    handle = attend.attention.register_forward_pre_hook(
        lambda module, called: expected.append(module.logits(called[0], called[1].keys.squeeze(1)))
    )
    with torch.no_grad():
        core(made).encode({"image": given})
    handle.remove()
    logits = (found.content["image"] + found.position["image"]).flatten(3) + found.bias[..., None]
    torch.testing.assert_close(logits, expected[0], atol=1e-4, rtol=1e-4)


def test_convolutions_of_sequences_are_called_when_somebody_listens() -> None:
    module = SequenceConvolutions(3, 4, kernel_size=5, depth=2)
    x = torch.randn(2, 9, 3)
    expected = module(x)
    with recorded({"first": module.layers[0], "second": module.layers[1]}) as calls:
        torch.testing.assert_close(module(x), expected)
    assert calls == {"first": 1, "second": 1}


def test_parts_that_are_replaced_are_called() -> None:
    """A feed-forward of someone else's."""
    module = CrossAttention(query_channels=6, input_channels=4, num_heads=1, use_query_residual=False).eval()
    then = linear(6, 1)
    queries, latents = torch.randn(2, 500, 6), torch.randn(2, 3, 4)

    class Doubled(FeedForward):
        def forward(self, x_BND: Tensor) -> Tensor:
            return 2 * super().forward(x_BND)

    doubled = Doubled(6, widening_factor=1, activation="gelu")
    doubled.load_state_dict(module.feed_forward.state_dict())
    module.feed_forward = doubled
    torch.testing.assert_close(module(queries, latents, then=Layers(then)), then(module(queries, latents)))


def test_what_is_plain() -> None:
    layer = linear(2, 3)
    assert is_plain(layer, nn.LayerNorm(2), LearnedArray(2, 3), TiedOutput(LearnedArray(2, 3)))
    assert not is_plain(nn.GELU())
    assert not is_plain(nn.Linear(2, 3, bias=False))
    assert not is_plain(type("Mine", (nn.Linear,), {})(2, 3))
    table = LearnedArray(2, 3)
    tied = TiedOutput(table)
    handle = table.register_forward_hook(lambda *_: None)
    assert has_hooks(table)
    assert not has_hooks(tied)
    assert not is_plain(tied)
    handle.remove()
    assert is_plain(tied)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Linear, "forward", lambda self, x: x)
        assert not is_plain(layer)
    assert is_plain(layer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_a_mask_that_is_not_bool_is_refused(dtype: torch.dtype) -> None:
    """A float mask would be added to the logits, and mask nothing."""
    for module in (
        CrossAttention(query_channels=4, input_channels=4, num_heads=1),
        MultiHeadAttention(
            query_channels=4, input_channels=4, num_heads=1, qk_channels=4, v_channels=4, output_channels=4
        ),
    ):
        x = torch.randn(2, 3, 4)
        with pytest.raises(ValueError, match=rf"must be \(B, M\) bool, got {dtype} \(2, 3\)"):
            module(x, x, torch.ones(2, 3, dtype=dtype))
        with pytest.raises(ValueError, match=r"must be \(B, M\) bool, got torch.bool \(3,\)"):
            module(x, x, torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("dropout", [nn.Dropout(0.5), nn.Identity()], ids=["kept in training", "replaced"])
def test_dropout_is_called_where_it_does_something_or_may(dropout: nn.Module) -> None:
    """Monte Carlo dropout: the model is evaluated, and its dropout is not."""
    module = CrossAttention(query_channels=6, input_channels=4, num_heads=1, use_query_residual=False).eval()
    module.dropout = dropout.train()
    then, queries, latents = linear(6, 1), torch.randn(2, 500, 6), torch.randn(2, 3, 4)
    torch.manual_seed(3)
    found = module(queries, latents, then=Layers(then))
    torch.manual_seed(3)
    torch.testing.assert_close(found, then(module(queries, latents)))
    module.train()(queries, latents, then=Layers(then)).sum().backward()


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_functional_transforms_see_the_layers() -> None:
    made, images = model("fourier"), torch.randn(3, 1, 3, 16, 16)
    parameters = dict(made.named_parameters())

    def logits(image: Tensor) -> Tensor:
        out = torch.func.functional_call(made, parameters, (image,))
        return out.logits

    expected = torch.stack([logits(image) for image in images])
    torch.testing.assert_close(torch.vmap(logits)(images), expected, atol=1e-5, rtol=1e-4)
