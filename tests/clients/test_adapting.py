"""LoRA and int8 of every class: what is adapted learns, the rest stays; what is quantised stays close."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torchao.quantization import Int8WeightOnlyConfig, quantize_

import perceiver_io as pio
from tests.clients.cases import CASES, batch, model


def values(output: object, name: str) -> list[Tensor]:
    found = output[CASES[name].output]  # type: ignore[index]
    return list(found.values()) if isinstance(found, dict) else [found]


@pytest.mark.parametrize("name", CASES)
def test_lora(name: str, tmp_path: Path) -> None:
    net, given = model(name), batch(name)
    base = copy.deepcopy(dict(net.named_parameters()))
    adapted = get_peft_model(net, LoraConfig(target_modules="all-linear", r=2, init_lora_weights=True))
    adapted.train()
    for module in adapted.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics would be learned, and be no part of the adapter
            module.eval()
    learning = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=1e-2)
    losses = []
    for _ in range(8):
        loss = adapted(**given).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    kept = {
        key.replace(".base_layer", ""): value for key, value in net.named_parameters() if "lora" not in key
    }
    torch.testing.assert_close(kept, base, rtol=0, atol=0)
    adapted.eval()
    adapted.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(model(name), tmp_path).eval()
    with torch.no_grad():
        expected = values(adapted(**given), name)
        torch.testing.assert_close(values(again(**given), name), expected, rtol=0, atol=0)
        merged = adapted.merge_and_unload()
        torch.testing.assert_close(values(merged(**given), name), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_int8_weights(name: str) -> None:
    net, given = model(name), batch(name)
    with torch.no_grad():
        expected = values(net(**given), name)
        quantize_(net, Int8WeightOnlyConfig())
        found = values(net(**given), name)
    assert any(
        "Int8" in type(weight).__name__ or "Affine" in type(weight).__name__ for weight in net.parameters()
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert not torch.equal(ours, theirs)
        known = theirs.isfinite()
        assert (ours - theirs)[known].square().mean().sqrt() < 0.1 * theirs[known].std() + 1e-3


@pytest.mark.parametrize("name", CASES)
def test_copies_and_pickles(name: str) -> None:
    net, given = model(name), batch(name)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    with torch.no_grad():
        expected = values(net(**given), name)
        for twin in (copy.deepcopy(net), torch.load(file, weights_only=False)):
            assert isinstance(twin, pio.PerceiverIOPreTrainedModel)
            torch.testing.assert_close(values(twin(**given), name), expected, rtol=0, atol=0)
