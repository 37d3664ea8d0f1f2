"""Perceiver AR under what people train with: checkpointed activations, bfloat16, compilation, LoRA."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from perceiver_io.tasks.autoregressive import PerceiverARForCausalLM
from tests.causal.models import conditions, small_model, tokens

KINDS = ["rotary", "krasserm", "label"]


def gradients(model: PerceiverARForCausalLM, kind: str) -> dict[str, torch.Tensor]:
    model.zero_grad()
    ids = tokens(3, 14)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    model(ids, mask, labels=ids, conditions=conditions(kind, 3)).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointed_activations_change_nothing(kind: str) -> None:
    model = small_model(kind).train()
    plain = gradients(model, kind)
    prefix = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    getattr(model, f"{prefix}_checkpointing_enable")()
    for name, gradient in gradients(model, kind).items():
        torch.testing.assert_close(gradient, plain[name], msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_near(kind: str) -> None:
    model = small_model(kind).float().train()
    plain = gradients(model, kind)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(model, kind)
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        scale = plain[name].abs().max().clamp(min=1e-3)
        assert (gradient - plain[name]).abs().max() < 0.1 * scale, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_in_bfloat16_generates(kind: str) -> None:
    model = small_model(kind).to(torch.bfloat16)
    given = conditions(kind, 2)
    out = model.generate(tokens(2, 9), conditions=given, max_new_tokens=30, do_sample=False, pad_token_id=0)
    assert out.shape == (2, 39)


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_attention_is_the_same(kind: str) -> None:
    model = small_model(kind)
    ids, given = tokens(2, 14), conditions(kind, 2)
    expected = model(ids, conditions=given).logits
    compiled = torch.compile(model, backend="eager", fullgraph=False)
    torch.testing.assert_close(compiled(ids, conditions=given).logits, expected)


def test_lora_on_every_linear_layer() -> None:
    from peft import LoraConfig, get_peft_model

    model = small_model("krasserm").float()
    ids = tokens(2, 14)
    before = model(ids).logits
    adapted = get_peft_model(
        model, LoraConfig(r=2, target_modules=["query", "key", "value", "hidden"], init_lora_weights=False)
    )
    assert (adapted(ids).logits - before).abs().max() > 1e-3
    adapted(ids, labels=ids).loss.backward()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    assert trained and all(parameter.grad.abs().sum() > 0 for parameter in trained)


def test_a_hook_on_any_layer_is_called() -> None:
    model = small_model("projected")
    called: set[str] = set()
    expected = set()
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Linear, nn.LayerNorm)):
            expected.add(name)
            layer.register_forward_hook(lambda *_, name=name: called.add(name))
    model(tokens(1, 9))
    assert called == expected
