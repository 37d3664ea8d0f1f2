"""Recipes of masked language models, and what trains them: the runner, from a published layout too, and a Trainer."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PerceiverConfig,
    PerceiverForMaskedLM,
    PerceiverTokenizer,
    Trainer,
    TrainingArguments,
)

import perceiver_io as pio
from perceiver_io.cli import main
from perceiver_io.data.settings import DataSettings
from perceiver_io.running import Setup, parse_recipe, read_recipe_file
from perceiver_io.running.batches import SeededBatches
from perceiver_io.running.building import build
from perceiver_io.running.runner import evaluate, predict, train
from perceiver_io.tasks import masked_language_modeling as mlm
from perceiver_io.tasks.masked_language_modeling import task as tasks
from perceiver_io.tasks.masked_language_modeling.model import PerceiverIOForMaskedLM
from perceiver_io.tasks.masked_language_modeling.recipe import MaskedLanguageModelingRecipe
from perceiver_io.tasks.masked_language_modeling.task import MaskedLanguageModelingTask

TASK = MaskedLanguageModelingTask()
RECIPES = Path(tasks.__file__).parent / "recipes"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text("".join(f"{number} times {number} is {number**2}.\n" for number in range(100)))
    return file


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A model of `transformers`, smaller than the published one in all that its class lets one choose."""
    config = PerceiverConfig(
        vocab_size=262,
        max_position_embeddings=48,
        d_model=32,
        d_latents=24,
        num_latents=6,
        num_blocks=1,
        num_self_attends_per_block=2,
        num_self_attention_heads=4,
        num_cross_attention_heads=4,
        qk_channels=16,
        v_channels=24,
    )
    folder = tmp_path / "published"
    PerceiverForMaskedLM(config).eval().save_pretrained(folder)
    return folder


def recipe(**values: Any) -> MaskedLanguageModelingRecipe:
    quick = {"device": "cpu", "max_steps": 2, "batch_size": 4, "eval_batch_size": 8}
    return MaskedLanguageModelingRecipe(**{**quick, **values})


# Recipes


def test_the_length_is_the_presets_or_512() -> None:
    assert recipe().variant == "small" and recipe().max_length == 256
    assert recipe(variant="tiny").max_length == 128
    assert recipe(variant="language").max_length == 2048
    assert recipe(variant="tiny", max_length=40).max_length == 40
    started = recipe(pretrained="folder")
    assert started.variant is None and started.max_length == 512


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"masking_probability": 0.0}, "masking_probability is 0.0, expected a share between 0 and 1"),
        ({"masking_probability": 1.0}, "masking_probability is 1.0"),
        ({"training_masking_probability": 15.0}, "training_masking_probability is 15.0"),
        ({"training_masking_probability": 0}, "training_masking_probability is 0"),
        ({"variant": "huge"}, "no variant 'huge' of the masked language model. Known: tiny, small, language"),
        (
            {"variant": "tiny", "pretrained": "folder"},
            "variant cannot be chosen: the model of folder has its own",
        ),
        ({"max_length": 2}, "max_length is 2, expected 3 or more"),
    ],
)
def test_bad_recipes(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**values)


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.stem)
def test_recipes_that_come_with_the_task(file: Path) -> None:
    parsed = parse_recipe(MaskedLanguageModelingRecipe, values=read_recipe_file(file, task=TASK.name))
    assert isinstance(parsed, MaskedLanguageModelingRecipe) and isinstance(parsed, DataSettings)
    model = mlm.PerceiverIOForMaskedLM(TASK.config(parsed, data=None))  # type: ignore[arg-type]
    assert model.max_length == parsed.max_length


def test_training_and_evaluation_hide_their_own_shares(text: Path) -> None:
    settings = recipe(
        dataset=str(text),
        variant="tiny",
        max_length=42,
        masking_probability=0.1,
        training_masking_probability=0.5,
    )
    data = TASK.data(settings)
    setup = build(TASK, settings, data)
    for split, is_training, expected in (("train", True, 20), ("train", False, 4), ("test", False, 4)):
        batch = TASK.collator(setup, train=is_training)([data.named(split)[index] for index in range(2)])
        assert batch["input_ids"].shape == (2, 42) and batch["positions"].shape == (2, expected)
    settings.training_masking_probability = None
    assert TASK.collator(setup, train=True)([data.train[0]])["positions"].shape == (1, 4)


# The runner


def test_measures_are_those_of_all_hidden_bytes(text: Path, tmp_path: Path) -> None:
    settings = recipe(
        dataset=str(text), variant="tiny", max_length=34, output_dir=str(tmp_path / "run"), eval_batch_size=5
    )
    metrics = train(TASK, settings)
    assert metrics["steps"] == 2 and math.isfinite(metrics["test_loss"])
    # Every test window, batch by batch, with the mean of all hidden bytes in one.
    data = TASK.data(settings)
    model = pio.from_pretrained(tmp_path / "run").eval()
    setup = Setup(recipe=settings, data=data, model=model, processor=TASK.processor(settings, data))
    batches = SeededBatches(data.test, TASK.collator(setup, train=False), seed=settings.seed)
    bits, hits = [], []
    for start in range(0, len(data.test), 5):
        batch = batches.__getitems__(range(start, min(start + 5, len(data.test))))
        assert isinstance(batch, dict)
        with torch.no_grad():
            probabilities = model(batch["input_ids"], batch.get("attention_mask")).logits.double().softmax(-1)
        for row, place in (batch["labels"] != -100).nonzero().tolist():
            here = probabilities[row, batch["positions"][row, place]]
            bits.append(-math.log2(here[batch["labels"][row, place]]))
            hits.append(int(here.argmax()) == int(batch["labels"][row, place]))
    assert metrics["test_bits"] == pytest.approx(np.mean(bits), rel=1e-5)
    assert metrics["test_bits"] == pytest.approx(metrics["test_loss"] / math.log(2), rel=1e-6)
    assert metrics["test_accuracy"] == pytest.approx(np.mean(hits), rel=1e-6)
    again = evaluate(TASK, tmp_path / "run")
    assert again["test_bits"] == pytest.approx(metrics["test_bits"], rel=1e-6)


def test_a_published_model_is_fine_tuned(text: Path, published: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = recipe(
        dataset=str(text), pretrained=str(published), max_length=48, learning_rate=1e-3, output_dir=str(run)
    )
    metrics = train(TASK, settings)
    assert metrics["steps"] == 2 and math.isfinite(metrics["test_loss"])
    before, after = pio.from_pretrained(published), pio.from_pretrained(run)
    assert type(after) is mlm.PerceiverIOForMaskedLM and after.max_length == 48
    assert set(before.state_dict()) == set(after.state_dict())
    moved = [
        name
        for name, value in before.state_dict().items()
        if not torch.equal(value, after.state_dict()[name])
    ]
    assert moved
    for name, value in before.state_dict().items():
        # Two steps of 0.001 at most: it went on from these weights, and did not start anew.
        torch.testing.assert_close(after.state_dict()[name], value, rtol=0, atol=2.5e-3)
    assert type(AutoModelForMaskedLM.from_pretrained(run)) is mlm.PerceiverIOForMaskedLM
    assert json.loads((run / "metrics.json").read_text())["test_bits"] == metrics["test_bits"]
    (filled,) = predict(TASK, run, ["4 times [MASK] is 16."])
    assert filled["text"].startswith("4 times ") and len(filled["masked"]) == 1


def test_an_evaluation_with_longer_windows_is_refused_before_the_first_batch(
    text: Path, published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(published), "--dataset", str(text), "--device", "cpu", "--max-length", "49"]

    def forward(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("A batch was tried.")

    monkeypatch.setattr(PerceiverIOForMaskedLM, "forward", forward)
    assert main(command) == 2
    assert "max_length is 49 tokens, but the model takes 48" in capsys.readouterr().err


def test_windows_longer_than_the_pretrained_model_are_refused(
    text: Path, published: Path, tmp_path: Path
) -> None:
    settings = recipe(dataset=str(text), pretrained=str(published), output_dir=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"max_length is 512 tokens, but the model takes 48"):
        train(TASK, settings)
    assert not (tmp_path / "run").exists()


# The Trainer of transformers


class Texts(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, texts: Sequence[str]) -> None:
        self.rows = [dict(PerceiverTokenizer()(text)) for text in texts]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


@pytest.mark.parametrize("variant", ["tiny", "small"])
def test_the_trainer_of_transformers(variant: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlm.PerceiverIOForMaskedLM(mlm.config(variant=variant, max_length=32))
    texts = ["The cat sat on the mat.", "Zürich lies by a lake.", "One more."]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=60,
        per_device_train_batch_size=3,
        learning_rate=3e-3,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    collate = DataCollatorForLanguageModeling(PerceiverTokenizer(), mlm_probability=0.3, seed=0)
    trainer = Trainer(model=model, args=arguments, train_dataset=Texts(texts), data_collator=collate)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # A guess at random costs log 262; half of that is far from it, and far from learned by heart.
    assert len(losses) == 60 and np.mean(losses[-5:]) < math.log(262) / 2
    trainer.save_model(str(tmp_path / "saved"))
    assert type(pio.from_pretrained(tmp_path / "saved")) is mlm.PerceiverIOForMaskedLM
