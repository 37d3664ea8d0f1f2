"""A set that is asked at its own elements: another number for each of as many stations as there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

import perceiver_io as pio
from perceiver_io.data import Splits, split_rows
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.ragged import pad_ragged
from perceiver_io.running import LoadedModel, PredictOptions, TrainingRecipe
from perceiver_io.running.building import build
from perceiver_io.running.evaluator import evaluate_rows
from perceiver_io.tasks.regression import PerceiverIOForRegression, RegressionTask
from perceiver_io.testing import ElementsAdapter

NAN = float("nan")


def config(**fields: Any) -> pio.PerceiverIOConfig:
    forecast = {
        "output_channels": 2,
        "query_input": "stations",
        "query_input_channels": 3,
        "position": "none",
        "channel_axis": -1,
    }
    return pio.PerceiverIOConfig(
        inputs={"stations": ElementsAdapter.Config(num_channels=3)},
        encoder=pio.EncoderConfig(
            num_latents=4, latent_channels=16, num_self_attends_per_block=1, num_self_attention_heads=2
        ),
        outputs={"forecast": DenseDecoder.Config(**forecast | fields)},
        adapters={"elements": ElementsAdapter},
    )


def model(**fields: Any) -> PerceiverIOForRegression:
    torch.manual_seed(0)
    return PerceiverIOForRegression(config(**fields)).eval()


def stations(*sizes: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, generator=generator) for size in sizes]


def batch(rows: Sequence[torch.Tensor]) -> dict[str, Any]:
    padded, mask = pad_ragged(rows)
    return {"inputs": {"stations": padded}, "masks": {} if mask is None else {"stations": mask}}


def test_a_sample_alone_and_in_a_batch() -> None:
    rows, of = stations(4, 9, 6), model()
    together = of(**batch(rows)).logits
    assert together.shape == (3, 9, 2)
    for row, found in zip(rows, together, strict=True):
        alone = of(**batch([row])).logits[0]
        torch.testing.assert_close(found[: len(row)], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_outputs", [1, 2])
def test_the_loss_is_about_what_is_real_and_known(num_outputs: int) -> None:
    rows, of = stations(4, 9, 6), model(output_channels=num_outputs, scale=2.5, offset=10.0)
    labels = [10 + torch.randn(len(row), num_outputs) for row in rows]
    labels[1][3, 0] = NAN
    padded, _ = pad_ragged(labels, value=NAN)
    output = of(**batch(rows), labels=padded)
    errors = [
        (of(**batch([row])).logits[0] - label)[~label.isnan()] / 2.5
        for row, label in zip(rows, labels, strict=True)
    ]
    assert output.loss.item() == pytest.approx(torch.cat(errors).square().mean().item(), rel=1e-5)
    zeros, mask = pad_ragged(labels)  # what the labels of padding are does not matter
    assert not mask.all() and of(**batch(rows), labels=zeros).loss == output.loss
    if num_outputs == 1:
        assert of(**batch(rows), labels=padded[..., 0]).loss == output.loss
    of.train()
    of(**batch(rows), labels=padded).loss.backward()
    assert all(one.grad.isfinite().all() for one in of.parameters() if one.grad is not None)


def test_nothing_known_is_no_loss() -> None:
    rows, of = stations(4, 9), model()
    assert of(**batch(rows), labels=torch.full((2, 9, 2), NAN)).loss.item() == 0


def test_labels_that_do_not_fit() -> None:
    rows, of = stations(4, 9), model()
    with pytest.raises(ValueError, match=r"labels must be \(2, 9, 2\), got \(2, 9\)"):
        of(**batch(rows), labels=torch.zeros(2, 9))
    with pytest.raises(ValueError, match="labels hold infinities"):
        of(**batch(rows), labels=torch.full((2, 9, 2), float("inf")))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channel_axis": 0}, "channel_axis=-1"),
        ({"patch_size": (2,)}, "patch_size"),
        (
            {"query_input": None, "query_input_channels": 0, "position": "fourier", "grid": (4,)},
            "query_input",
        ),
    ],
)
def test_other_dense_outputs_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**fields)


def test_it_is_saved_and_found_again(tmp_path: Path) -> None:
    of, given = model(), batch(stations(4, 9))
    of.save_pretrained(tmp_path)
    twin = pio.from_pretrained(tmp_path, adapters={"elements": ElementsAdapter}).eval()
    assert type(twin) is PerceiverIOForRegression
    assert torch.equal(twin(**given).logits, of(**given).logits)


class Forecasts(RegressionTask):
    """At each of some stations, the mean of what all of them say, plus what itself says; some do not tell."""

    name = "forecasts"

    def data(self, recipe: TrainingRecipe) -> Splits:
        generator = torch.Generator().manual_seed(0)
        sizes = torch.randint(3, 9, (60,), generator=generator).tolist()
        rows = []
        for size in sizes:
            values = torch.randn(size, 3, generator=generator)
            known = (values + values.mean(0))[:, :2]
            known[0, 0] = NAN
            rows.append({"stations": values, "forecast": known})
        return split_rows(rows, recipe, seed=recipe.seed)

    def config(self, recipe: TrainingRecipe, data: Splits) -> pio.PerceiverIOConfig:
        return config()

    def collate(self, rows: Sequence[dict[str, torch.Tensor]], processor: Any) -> dict[str, Any]:
        made = batch([row["stations"] for row in rows])
        if "forecast" in rows[0]:
            made["labels"] = pad_ragged([row["forecast"] for row in rows], value=NAN)[0]
        return made

    def read(self, file: str) -> dict[str, torch.Tensor]:
        return {"stations": torch.tensor(json.loads(Path(file).read_text()))}


def test_a_task_measures_and_predicts_what_is_real_and_known(tmp_path: Path) -> None:
    task, recipe = Forecasts(), TrainingRecipe(eval_batch_size=5, device="cpu")
    setup = build(task, recipe, task.data(recipe))
    found = evaluate_rows(task, setup, setup.data.test)
    errors = []
    for row in setup.data.test:
        with torch.no_grad():
            logits = setup.model.eval()(**batch([row["stations"]])).logits[0]
        errors.append((logits - row["forecast"])[~row["forecast"].isnan()])
    error = torch.cat(errors)
    assert float(found["mae"]) == pytest.approx(error.abs().mean().item(), rel=1e-5)
    assert float(found["rmse"]) == pytest.approx(error.square().mean().sqrt().item(), rel=1e-5)
    assert float(found["loss"]) == pytest.approx(error.square().mean().item(), rel=1e-5)
    assert len(setup.data.test) > 5  # several batches, of unlike numbers of stations

    files = []
    for number, row in enumerate(stations(3, 7)):
        files.append(str(tmp_path / f"{number}.json"))
        Path(files[-1]).write_text(json.dumps(row.tolist()))
    loaded = LoadedModel(model=setup.model.eval(), processor=None, source="here")
    results = task.predict(loaded, files, PredictOptions())
    assert [len(one["value"]) for one in results] == [3, 7]
    assert [len(one) for one in results[0]["value"]] == [2, 2, 2]
    assert task.describe_prediction(results[0]).count("\n") == 3
    drawn = task.pictures(setup, {})
    drawn["predictions.png"](tmp_path / "predictions.png")
    assert (tmp_path / "predictions.png").stat().st_size > 1000


def test_a_plain_trainer_learns_it(tmp_path: Path) -> None:
    task, recipe = Forecasts(), TrainingRecipe(device="cpu")
    rows = list(task.data(recipe).train)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=60,
        per_device_train_batch_size=16,
        learning_rate=1e-2,
        remove_unused_columns=False,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        label_names=["labels"],
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model=model().train(),
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=lambda some: task.collate(some, None),
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.5 * before
