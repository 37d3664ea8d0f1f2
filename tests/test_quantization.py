"""Int8 where it pays: which layers are converted, how far the results are off, how small the model becomes."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import small_models
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.ao.nn.quantized.dynamic import Linear

from perceiver_io.attention import SelfAttention
from perceiver_io.quantization import int8_layers, quantize
from tests.causal.models import KINDS, conditions, small_model, tokens
from tests.small_digits import accuracy, digits, trained_on_digits


def size(model: nn.Module) -> int:
    """Bytes of the weights in a file."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


def test_a_trained_model_is_as_good_and_half_the_size() -> None:
    model, held_out = trained_on_digits(), digits()[1]
    quantized = quantize(model)
    with torch.no_grad():
        expected, found = (each(pixel_values=held_out[0]).logits for each in (model, quantized))
    assert not torch.equal(found, expected)
    assert ((found - expected).square().mean().sqrt() / expected.std()).item() < 0.02
    assert (found.argmax(-1) == expected.argmax(-1)).double().mean() > 0.99
    assert accuracy(model, held_out) > 0.95
    assert abs(accuracy(quantized, held_out) - accuracy(model, held_out)) < 0.006
    assert size(quantized) < 0.5 * size(model)


@pytest.mark.parametrize("name", small_models.CONFIGS)
def test_layers_of_the_latents_are_converted_and_bracketed_ones_are_not(name: str) -> None:
    model = small_models.model(name)
    core = small_models.core(model)
    names = set(int8_layers(model))
    kinds = {path for path, module in quantize(model).named_modules() if isinstance(module, Linear)}
    assert kinds == names
    for path, module in model.named_modules():
        if isinstance(module, SelfAttention):
            assert {f"{path}.attention.{part}" for part in ("query", "key", "value", "output")} <= names
            assert {f"{path}.feed_forward.{part}" for part in ("hidden", "output")} <= names
    assert not any(".adapters." in path or path.endswith("decoders.label.output") for path in names)
    one_head = core.config.encoder.num_cross_attention_heads == 1
    attends = {path for path in names if ".cross_attends.0.attention." in path}
    assert len(attends) == (0 if one_head else 4)


@pytest.mark.parametrize("name", small_models.CONFIGS)
def test_results_stay_near(name: str) -> None:
    model, arguments = small_models.model(name), small_models.arguments(name)
    with torch.no_grad():
        expected = small_models.outputs(model(**arguments))
        found = small_models.outputs(quantize(model)(**arguments))
    for output, value in expected.items():
        if value.ndim:
            assert 0 < (found[output] - value).square().mean().sqrt() / value.std() < 0.1, output


def test_brackets_are_chosen_as_without_int8() -> None:
    """Many pixels and few latents: keys and values of the pixels are never made."""
    model = small_models.core(small_models.model("fourier"))
    attention = quantize(model).encoder.cross_attends[0].attention
    chosen = attention.brackets(num_queries=8, num_inputs=50_000)
    assert chosen == model.encoder.cross_attends[0].attention.brackets(num_queries=8, num_inputs=50_000)
    assert chosen == ("queries", "outputs")


@pytest.mark.parametrize("kind", KINDS)
def test_causal_models_are_converted_too(kind: str) -> None:
    model = small_model(kind).float()
    inside = {
        f"perceiver.encoder.{name}"
        for name, part in model.perceiver.encoder.named_modules()
        if type(part) is nn.Linear
    }
    assert inside and set(int8_layers(model)) == inside
    given = {"input_ids": tokens(2, 15)}
    if (others := conditions(kind, 2)) is not None:
        given["conditions"] = {name: x.float() if x.is_floating_point() else x for name, x in others.items()}
    with torch.no_grad():
        expected, found = model(**given).logits, quantize(model)(**given).logits
    assert 0 < (found - expected).square().mean().sqrt() / expected.std() < 0.1


def test_the_model_itself_stays_as_it_is() -> None:
    model = small_models.model("mlm")
    before, engine = copy.deepcopy(model.state_dict()), torch.backends.quantized.engine
    quantize(model.train())
    assert model.training and torch.backends.quantized.engine == engine
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert not any(hasattr(module, "qconfig") for module in model.modules())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.bfloat16(), r"float32 on the CPU to be quantised, .* has torch.bfloat16 on cpu"),
        (quantize, "No layer of this PerceiverIOForMaskedLM can be converted"),
        (
            lambda model: get_peft_model(model, LoraConfig(target_modules="all-linear")),
            "Merge adapters and remove hooks",
        ),
        (lambda model: nn.Linear(2, 2), "Expected a PerceiverIO or a model that holds one, got Linear"),
    ],
    ids=["type", "twice", "adapters", "no Perceiver"],
)
def test_what_cannot_be_converted_is_refused(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(change(small_models.model("mlm")))


def test_parts_of_a_larger_model_are_converted() -> None:
    class Captioner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.eyes, self.mouth = small_models.core(small_models.model("fourier")), nn.Linear(10, 3)

    names = int8_layers(Captioner())
    assert names and all(
        name.startswith("eyes.encoder.") or name.startswith("eyes.decoders.") for name in names
    )
    assert type(quantize(Captioner()).mouth) is nn.Linear
