"""LoRA as its users do it: peft, the Trainer of transformers, the adapter in a folder of its own; what it reaches."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import Trainer, TrainingArguments

import perceiver_io as pio
from tests.small_digits import Digits, accuracy, digits, trained_on_digits

NUM_STEPS = 120


def turned(data: Digits) -> Digits:
    """The same digits, by a quarter to the left: what the model has learned helps little."""
    return data[0].rot90(1, (2, 3)).contiguous(), data[1]


def fine_tuned(model: nn.Module, folder: Path) -> Trainer:
    images, labels = turned(digits()[0])
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=NUM_STEPS,
        per_device_train_batch_size=64,
        learning_rate=1e-2,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        seed=0,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    rows: Any = [
        {"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)
    ]
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    return trainer


@dataclass(frozen=True)
class Adapted:
    """A model whose adapters were trained, and where they and the model without them are saved."""

    model: PeftModel
    before: dict[str, torch.Tensor]
    base: Path
    adapter: Path


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    folder = tmp_path_factory.mktemp("lora")
    model = trained_on_digits()
    model.save_pretrained(folder / "base")
    torch.manual_seed(0)
    config = LoraConfig(target_modules=["attention.query", "attention.value"], r=2, lora_alpha=4)
    with_adapters = get_peft_model(copy.deepcopy(model), config)
    trainer = fine_tuned(with_adapters, folder / "run")
    trainer.save_model(str(folder / "adapter"))
    return Adapted(with_adapters.eval(), dict(model.state_dict()), folder / "base", folder / "adapter")


def test_one_percent_of_the_parameters_learns_the_changed_task(adapted: Adapted, tmp_path: Path) -> None:
    held_out = turned(digits()[1])
    trainable, total = adapted.model.get_nb_trainable_parameters()
    assert trainable / total < 0.011
    frozen = trained_on_digits()
    assert accuracy(frozen, held_out) < 0.2
    only_head = frozen.requires_grad_(False)
    only_head.perceiver.decoders["label"].output.requires_grad_(True)
    fine_tuned(only_head, tmp_path)
    assert accuracy(only_head.eval(), held_out) < 0.85
    assert accuracy(adapted.model, held_out) > 0.9


def test_the_model_beneath_is_unchanged(adapted: Adapted) -> None:
    found = {
        name.replace(".base_layer", ""): x for name, x in adapted.model.get_base_model().state_dict().items()
    }
    for name, value in adapted.before.items():
        assert torch.equal(found[name], value), name
    with adapted.model.disable_adapter():
        assert accuracy(adapted.model, digits()[1]) == accuracy(trained_on_digits(), digits()[1])


def test_the_adapter_is_saved_alone_and_loaded_onto_the_model(adapted: Adapted) -> None:
    (file,) = adapted.adapter.glob("*.safetensors")
    assert file.stat().st_size < 0.05 * (adapted.base / "model.safetensors").stat().st_size
    loaded = PeftModel.from_pretrained(pio.from_pretrained(adapted.base), adapted.adapter).eval()
    images = digits()[1][0]
    with torch.no_grad():
        assert torch.equal(loaded(pixel_values=images).logits, adapted.model(pixel_values=images).logits)


def test_the_merged_model_is_one_of_ours_and_gives_the_same(adapted: Adapted, tmp_path: Path) -> None:
    merged = copy.deepcopy(adapted.model).merge_and_unload()
    merged.save_pretrained(tmp_path)
    loaded = pio.from_pretrained(tmp_path)
    assert type(loaded).__name__ == "PerceiverIOForImageClassification"
    images = digits()[1][0]
    with torch.no_grad():
        expected = adapted.model(pixel_values=images).logits
        torch.testing.assert_close(loaded(pixel_values=images).logits, expected, rtol=1e-4, atol=1e-4)
