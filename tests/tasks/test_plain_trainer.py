"""Models of any named inputs in the Trainer of transformers as it is: two ragged ones, one of them missing at times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

import perceiver_io as pio
from perceiver_io.adapters.table import TableAdapter
from perceiver_io.adapters.table_processor import TableProcessor
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.adapters.text_processor import ByteTextProcessor
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.tasks.classification import PerceiverIOForClassification
from perceiver_io.tasks.modalities.table import columns_of
from perceiver_io.tasks.regression import PerceiverIOForRegression


def rows() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for index in range(48):
        number = torch.randn((), generator=generator).item()
        inputs: dict[str, Any] = {"table": {"x": number, "kind": "ab"[index % 2]}}
        if index % 3:
            inputs["text"] = "plus" if number > 0 else "it is less than zero"
        made.append({"inputs": inputs, "number": number})
    return made


def collator(processor: PerceiverIOProcessor, *, classes: bool) -> Any:
    def collate(some: list[dict[str, Any]]) -> dict[str, Any]:
        numbers = torch.tensor([row["number"] for row in some])
        batch = processor([row["inputs"] for row in some])
        return {**batch, "labels": (numbers > 0).long() if classes else numbers}

    return collate


@pytest.mark.parametrize("model_class", [PerceiverIOForClassification, PerceiverIOForRegression])
def test_it_learns(model_class: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data, classes = rows(), model_class is PerceiverIOForClassification
    table = TableProcessor.fitted([row["inputs"]["table"] for row in data])
    processor = PerceiverIOProcessor({"table": table, "text": ByteTextProcessor(max_length=32)})
    output = pio.ClassificationDecoder.Config(num_classes=2) if classes else pio.RegressionDecoder.Config()
    config = pio.PerceiverIOConfig(
        inputs={
            "table": TableAdapter.Config(columns=columns_of(table), num_channels=8),
            "text": TextAdapter.Config(max_length=32, num_channels=16, position="fourier", num_bands=4),
        },
        encoder=pio.EncoderConfig(num_latents=4, latent_channels=16, num_self_attention_heads=2),
        outputs={"answer": output},
    )
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=25,
        per_device_train_batch_size=12,
        learning_rate=1e-2,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    collate = collator(processor, classes=classes)
    trainer = Trainer(
        model=model_class(config),
        args=arguments,
        train_dataset=data,
        eval_dataset=data,
        data_collator=collate,
        processing_class=processor,
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.5 * before
    trainer.save_model()
    twin = pio.from_pretrained(tmp_path).eval()
    assert type(twin) is model_class
    assert PerceiverIOProcessor.from_pretrained(tmp_path) == processor
    with torch.no_grad():
        together = twin(**collate(data[:5])).logits
        alone = torch.cat([twin(**collate([row])).logits for row in data[:5]])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert trainer.predict(data).predictions.shape == (48, 2 if classes else 1)
