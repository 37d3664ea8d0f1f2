"""What models of transformers give if asked: a tuple, hidden states, attention weights; the base model's output."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import perceiver_io as pio
from perceiver_io.attention import SelfAttention
from perceiver_io.tasks import causal_language_modeling
from tests.clients.cases import CASES, batch, model


@pytest.mark.parametrize("name", CASES)
def test_a_tuple_is_what_is_not_none_in_order(name: str) -> None:
    net, given = model(name), batch(name)
    output, told = net(**given), net(**given, return_dict=False)
    assert isinstance(told, tuple)
    torch.testing.assert_close(told, output.to_tuple(), rtol=0, atol=0)
    assert torch.equal(output.loss, told[0])
    net.config.return_dict = False
    torch.testing.assert_close(net(**given), told, rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_layers_are_noted_and_change_nothing(name: str) -> None:
    net, given = model(name), batch(name)
    with torch.no_grad():
        output = net(**given)
        asked = net(**given, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(asked[CASES[name].output], output[CASES[name].output], rtol=0, atol=0)
    # One cross-attend and two self-attends, and what goes into the first.
    assert len(asked.hidden_states) == 4
    assert len(asked.attentions) == 2 and len(asked.cross_attentions) == 1
    shape = asked.hidden_states[0].shape
    assert all(state.shape == shape for state in asked.hidden_states)
    for weights in (*asked.attentions, *asked.cross_attentions):
        assert weights.shape[0] == 3 and weights.shape[2] == shape[1]
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    # Nothing is left behind, and what is asked for is not needed.
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert "hidden_states" not in output and net(**given, output_hidden_states=True).get("attentions") is None


def test_weights_are_those_that_are_attended_with() -> None:
    """Weights times values, through the output layer, are what the attention gives."""
    for name in ("image-classification", "causal-language-modeling"):
        net, given = model(name), batch(name)
        attended: list[tuple[Tensor, Tensor, Any]] = []
        handles = [
            layer.attention.register_forward_hook(
                lambda module, args, output, to=attended: to.append((args[1], output, module))
            )
            for layer in net.base_model.encoder.modules()
            if hasattr(layer, "attention_weights") and hasattr(layer, "norm")
        ]
        with torch.no_grad():
            weights = net(**given, output_attentions=True).attentions
            for handle in handles:
                handle.remove()
            assert len(attended) == len(weights) == 2
            for weights_BHNM, (inputs_BMC, output_BND, attention) in zip(weights, attended, strict=True):
                values_BMHE = attention.value(inputs_BMC).unflatten(-1, (attention.num_heads, -1))
                expected_BNHE = torch.einsum("bhnm,bmhe->bnhe", weights_BHNM, values_BMHE)
                torch.testing.assert_close(attention.output(expected_BNHE.flatten(2)), output_BND)


def test_cross_attentions_are_the_maps() -> None:
    net, given = model("multimodal-classification"), batch("multimodal-classification")
    with torch.no_grad():
        (weights_BHNM,) = net(**given, output_attentions=True).cross_attentions
    (found,) = net.attention_maps(given["inputs"], given["masks"])
    expected = torch.cat([found.weights[name].flatten(3) for name in ("image", "text")], dim=-1)
    torch.testing.assert_close(weights_BHNM, expected)
    assert (weights_BHNM[0, :, :, -3:] == 0).all()  # masked


def test_with_a_cache_there_are_no_weights_but_hidden_states() -> None:
    net, given = model("causal-language-modeling"), batch("causal-language-modeling")
    ids = given["input_ids"]
    with pytest.raises(ValueError, match="With a cache there are no attention weights"):
        net(ids, use_cache=True, output_attentions=True)
    made = net.generate(
        ids[:, :5],
        max_new_tokens=3,
        do_sample=False,
        output_hidden_states=True,
        return_dict_in_generate=True,
        eos_token_id=None,
    )
    assert len(made.hidden_states) == 3 and made.hidden_states[1][-1].shape[1] == 1


def test_other_threads_are_not_noted() -> None:
    net, given = model("image-classification"), batch("image-classification")
    stop = threading.Event()

    def use() -> None:
        with torch.no_grad():
            while not stop.is_set():
                net(**given)

    other = threading.Thread(target=use)
    other.start()
    try:
        counts = {len(net(**given, output_hidden_states=True).hidden_states) for _ in range(20)}
    finally:
        stop.set()
        other.join()
    assert counts == {4}


@pytest.mark.parametrize("name", CASES)
def test_eager_attention_is_the_same(name: str) -> None:
    fused, given = model(name), batch(name)
    eager = model(name)
    eager.set_attn_implementation("eager")
    with torch.no_grad(), torch.profiler.profile(acc_events=True) as profile:
        ours = eager(**given)
    kinds = {event.key for event in profile.key_averages()}
    assert not any("flash" in kind for kind in kinds)
    assert any("_scaled_dot_product_attention_math" in kind for kind in kinds)
    with torch.no_grad():
        torch.testing.assert_close(
            ours[CASES[name].output], fused(**given)[CASES[name].output], rtol=1e-4, atol=1e-5
        )


def test_the_base_model_gives_what_base_models_give() -> None:
    net, given = model("image-classification"), batch("image-classification")
    base, pixels = net.base_model, given["pixel_values"]
    assert isinstance(base, pio.PerceiverIO)
    output = base(pixel_values=pixels)
    torch.testing.assert_close(output["label"], net(**given).logits, rtol=0, atol=0)
    assert output[0] is output.last_hidden_state is output.latents
    assert list(output) == ["last_hidden_state", "outputs", "hidden"]
    assert base({"image": pixels}, return_dict=False)[0].equal(output[0])
    leaves, form = pytree.tree_flatten(output)
    again = pytree.tree_unflatten(leaves, form)
    assert type(again) is pio.PerceiverIOOutput and torch.equal(again["label"], output["label"])
    mask = torch.ones(3, 8, 8, dtype=torch.int64)
    mask[:, 4:] = 0
    masked = base({"image": pixels}, {"image": mask.bool()})
    torch.testing.assert_close(base(pixel_values=pixels, pixel_mask=mask)[0], masked[0], rtol=0, atol=0)


def test_outputs_are_found_by_their_names_whatever_these_are() -> None:
    config = pio.PerceiverIOConfig(
        inputs=model("multiple-outputs").config.inputs,
        encoder=model("multiple-outputs").config.encoder,
        outputs={"hidden": pio.ClassificationDecoder.Config(num_classes=2)},
    )
    output = pio.PerceiverIO(config)({"x": torch.randn(2, 4, 3)})
    assert output["hidden"].shape == (2, 2) and output.hidden == {}
    assert output.to_tuple()[2] == {} and output["last_hidden_state"].shape == (2, 4, 16)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "There are no inputs"),
        ({"pixel_value": torch.zeros(1, 3, 8, 8)}, "'pixel_value' belongs to 0 of the inputs"),
        ({"output_attentions": "yes"}, "output_attentions must be True or False"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model("image-classification").base_model(**given)


def test_an_argument_that_two_inputs_have_is_refused() -> None:
    inputs = dict(model("text-classification").config.inputs)
    config = model("text-classification").config.replaced(inputs={"a": inputs["text"], "b": inputs["text"]})
    with pytest.raises(ValueError, match="'input_ids' belongs to 2 of the inputs"):
        pio.PerceiverIO(config)(input_ids=torch.zeros(1, 4, dtype=torch.int64))


def test_the_arguments_of_a_field_may_come_by_the_names_of_inputs() -> None:
    net, given = model("image-classification"), batch("image-classification")
    by_name = net(inputs={"image": given["pixel_values"]}, masks={}, labels=given["labels"])
    torch.testing.assert_close(by_name.logits, net(**given).logits, rtol=0, atol=0)
    with pytest.raises(ValueError, match="no input 'sound'"):
        net(inputs={"sound": given["pixel_values"]})


def test_layers_of_published_sizes_are_found() -> None:
    """Shared blocks are noted each time that they are used."""
    config = causal_language_modeling.config(variant="tiny", max_length=24, num_latents=8)
    net = causal_language_modeling.PerceiverARForCausalLM(config).eval()
    states = net(torch.arange(6, 30)[None], output_hidden_states=True).hidden_states
    assert len(states) == 2 + config.encoder.num_self_attends
    image = model("image-classification")
    shared = image.config.replaced(
        encoder=image.config.encoder.__class__(
            **{**image.config.encoder.to_dict(), "num_blocks": 3, "share_blocks": "all"}
        )
    )
    base = pio.PerceiverIO(shared).eval()
    assert sum(isinstance(module, SelfAttention) for module in base.modules()) == 2
    assert (
        len(base(pixel_values=torch.randn(1, 3, 8, 8), output_hidden_states=True).hidden_states) == 1 + 1 + 6
    )
