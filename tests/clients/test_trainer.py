"""The Trainer of transformers, as it is, with every class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

import perceiver_io as pio
from tests.clients.cases import CASES, batch, model

# What the Trainer knows a batch with a loss by, where that is not called labels.
LABELS = {"masked-autoencoding": "hidden", "multimodal-autoencoding": "label"}


def one(batched: Any, index: int) -> Any:
    if isinstance(batched, dict):
        return {key: one(value, index) for key, value in batched.items()}
    return batched[index]


def stacked(samples: list[Any]) -> Any:
    if isinstance(samples[0], dict):
        return {key: stacked([sample[key] for sample in samples]) for key in samples[0]}
    return torch.stack(samples)


@pytest.mark.parametrize("name", CASES)
def test_it_trains_evaluates_and_saves(name: str, tmp_path: Path) -> None:
    rows = [one(batch(name, 8), index) for index in range(8)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=6,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=4,
        learning_rate=3e-3,
        warmup_steps=0,
        remove_unused_columns=False,
        label_names=[LABELS.get(name, "labels")],
        report_to="none",
        logging_steps=1,
        save_strategy="steps",
        save_steps=3,
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model=model(name, train=True),
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=stacked,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 6 and losses[-1] < losses[0]
    assert 0 < trainer.evaluate()["eval_loss"] < float("inf")
    trainer.save_model()
    twin = pio.from_pretrained(tmp_path)
    assert type(twin) is type(trainer.model)
    torch.testing.assert_close(twin.state_dict(), trainer.model.state_dict(), rtol=0, atol=0)
    # A run that stopped half way ends with the same weights.
    resumed = Trainer(
        model=model(name, train=True), args=arguments, train_dataset=rows, data_collator=stacked
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    torch.testing.assert_close(resumed.model.state_dict(), twin.state_dict(), rtol=0, atol=0)
