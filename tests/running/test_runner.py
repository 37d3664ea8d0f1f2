from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torchmetrics import MeanMetric, Metric

from perceiver_io.pictures import learning_curve
from perceiver_io.running import LoadedModel, PredictOptions, RunFolder, Setup, runner
from perceiver_io.running.checkpoints import whole_checkpoints
from perceiver_io.running.task import Collate, Drawing

from . import toy_task


@pytest.fixture(autouse=True)
def plain_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures have tests of their own, and take longer than all else here."""

    def draw(history: Any, path: Path, **kwargs: Any) -> None:
        path.write_bytes(b"png")

    monkeypatch.setattr(runner, "draw_learning_curve", draw)


class Scripted(Metric):
    """A measure whose value is said beforehand, evaluation by evaluation; it looks at nothing."""

    full_state_update = False

    def __init__(self, script: list[float]) -> None:
        super().__init__()
        self.script = script

    def update(self) -> None: ...

    def compute(self) -> torch.Tensor:
        return torch.tensor(self.script.pop(0))


class LowerIsBetter(Scripted):
    higher_is_better = False


class HigherIsBetter(Scripted):
    higher_is_better = True


class ScriptedVotes(toy_task.Votes):
    def __init__(self, metric: type[Scripted], script: list[float]) -> None:
        self.metric = metric
        self.script = script

    def measures(self, setup: Setup) -> dict[str, Metric]:
        return {"mae": self.metric(self.script)}

    def update(self, measures: Mapping[str, Metric], output: Any, batch: Any) -> None:
        measures["mae"].update()


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(toy_task.Voter.from_pretrained(path).state_dict())


def assert_kept(run: Path, step: int) -> None:
    kept, checkpoint = weights(run), weights(run / "checkpoints" / f"checkpoint-{step}")
    assert all(torch.equal(kept[name], checkpoint[name]) for name in kept)
    last = weights(run / "checkpoints" / "checkpoint-16")
    assert step == 16 or any(not torch.equal(kept[name], last[name]) for name in kept)


@pytest.mark.parametrize(("metric", "best_epoch"), [(LowerIsBetter, 2), (HigherIsBetter, 3)])
def test_the_measures_own_direction_keeps_the_best_checkpoint(
    tmp_path: Path, metric: type[Scripted], best_epoch: int
) -> None:
    # Four epochs of four steps, and then the test.
    task = ScriptedVotes(metric, [0.5, 0.2, 0.9, 0.6, 0.7])
    recipe = toy_task.recipe(tmp_path / "run", num_epochs=4, best_metric="mae", save_total_limit=1)
    metrics = runner.train(task, recipe)
    assert metrics["best_step"] == 4 * best_epoch
    best = {"name": "mae", "value": pytest.approx([0.2, 0.9][best_epoch - 2])}
    assert metrics["best_metric"] == best
    assert metrics["test_mae"] == pytest.approx(0.7)
    assert [entry["eval_mae"] for entry in metrics["history"] if "eval_mae" in entry] == pytest.approx(
        [0.5, 0.2, 0.9, 0.6]
    )
    assert_kept(tmp_path / "run", 4 * best_epoch)
    checkpoints = whole_checkpoints(tmp_path / "run" / "checkpoints")
    assert [path.name for path in checkpoints] == [f"checkpoint-{4 * best_epoch}", "checkpoint-16"]


class UndirectedVotes(toy_task.Votes):
    def measures(self, setup: Setup) -> dict[str, Metric]:
        return {**super().measures(setup), "theirs": MeanMetric()}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("accuracy", "best_metric is 'accuracy', which is not measured. Choose from loss, hits, none"),
        ("theirs", "best_metric is 'theirs', which is better in no direction. Choose from loss, hits, none"),
    ],
)
def test_a_measure_that_can_choose_nothing_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        runner.train(UndirectedVotes(), toy_task.recipe(tmp_path / "run", best_metric=name))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("changes", [{"best_metric": "none"}, {"validation_fraction": 0}])
def test_the_last_weights_are_kept_where_nothing_chooses(tmp_path: Path, changes: dict[str, Any]) -> None:
    metrics = runner.train(toy_task.Votes(), toy_task.recipe(tmp_path / "run", num_epochs=4, **changes))
    assert metrics["best_step"] is None and metrics["best_metric"] == {"name": None, "value": None}
    assert_kept(tmp_path / "run", 16)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "draw_learning_curve", lambda history, path, **kwargs: path.write_bytes(b"png"))
        return path, runner.train(toy_task.Votes(), toy_task.recipe(path, num_epochs=3))


def test_training_validation_test_and_evaluate_agree(trained: tuple[Path, dict[str, Any]]) -> None:
    path, metrics = trained
    best = next(
        entry
        for entry in metrics["history"]
        if entry["step"] == metrics["best_step"] and "eval_loss" in entry
    )
    for split, expected in (
        ("validation", {"loss": best["eval_loss"], "hits": best["eval_hits"]}),
        ("test", {"loss": metrics["test_loss"], "hits": metrics["test_hits"]}),
    ):
        again = runner.evaluate(toy_task.Votes(), path, split=split)
        assert again["split"] == split
        for name, value in expected.items():
            assert again[f"{split}_{name}"] == pytest.approx(value, rel=1e-6)
    # Against all rows at once, without the toolkit's loops.
    model = toy_task.Voter.from_pretrained(path).eval()
    recipe = toy_task.recipe()
    rows = toy_task.Votes().data(recipe).test
    batch = toy_task.collate([rows[index] for index in range(len(rows))])
    with torch.no_grad():
        output = model(**batch)
    assert metrics["test_loss"] == pytest.approx(output.loss.item(), rel=1e-5)
    assert metrics["test_hits"] == pytest.approx(
        (output.logits.argmax(-1) == batch["labels"]).float().mean().item()
    )
    assert metrics["test_samples"] == len(rows) == 9


def test_evaluate_keeps_to_the_runs_device_and_precision(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = trained
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((path / name).read_bytes())
    text = (path / "recipe.yaml").read_text()
    assert "precision: float32" in text and "device: cpu" in text
    mixed: list[bool] = []
    devices = []
    forward = toy_task.Voter.forward

    def watched(self: toy_task.Voter, **batch: Any) -> Any:
        mixed.append(torch.is_autocast_enabled("cpu"))
        return forward(self, **batch)

    monkeypatch.setattr(toy_task.Voter, "forward", watched)

    class Watching(toy_task.Votes):
        def load(self, source: Any, *, device: Any = None, dtype: Any = None) -> LoadedModel[Any]:
            devices.append(device)
            return super().load(source, device="cpu", dtype=dtype)

    for precision, device in (("float32", "cpu"), ("bf16", "cpu"), ("bf16", "auto")):
        changed = text.replace("precision: float32", f"precision: {precision}")
        (tmp_path / "recipe.yaml").write_text(changed.replace("device: cpu", f"device: {device}"))
        runner.evaluate(Watching(), tmp_path)
    assert mixed == [False] * 3 + [True] * 6
    # None: an accelerator, if there is one.
    assert devices == ["cpu", "cpu", None]


def test_a_run_in_bf16_is_evaluated_as_it_was_tested(tmp_path: Path) -> None:
    metrics = runner.train(toy_task.Votes(), toy_task.recipe(tmp_path / "run", precision="bf16"))
    again = runner.evaluate(toy_task.Votes(), tmp_path / "run")
    assert again["test_loss"] == pytest.approx(metrics["test_loss"], rel=1e-6)
    assert again["test_hits"] == metrics["test_hits"]
    assert toy_task.Voter.from_pretrained(tmp_path / "run").dtype == torch.float32


def test_bad_splits(trained: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"no data in the split 'all'. Choose from test, validation, train"):
        runner.evaluate(toy_task.Votes(), trained[0], split="all")


def test_evaluating_the_training_rows_takes_no_augmentation(trained: tuple[Path, dict[str, Any]]) -> None:
    asked = []

    class Watching(toy_task.Votes):
        def collator(self, setup: Setup, *, train: bool) -> Collate:
            asked.append(train)
            return super().collator(setup, train=train)

    results = runner.evaluate(Watching(), trained[0], split="train")
    assert results["train_samples"] == len(toy_task.Votes().data(toy_task.recipe()).train)
    assert asked == [False]


def test_a_setting_of_the_model_that_would_be_passed_over_is_refused(tmp_path: Path) -> None:
    # The toy task's config looks at the encoder's settings alone.
    recipe = toy_task.recipe(tmp_path / "run", model={"inputs": {"text": {"num_channels": 9}}})
    with pytest.raises(ValueError, match=r"model.inputs.text cannot be set so.*'num_channels': \(9, 8\)"):
        runner.train(toy_task.Votes(), recipe)
    assert os.listdir(tmp_path) == []


def test_model_settings_reach_the_model(tmp_path: Path) -> None:
    model = {"encoder": {"num_latents": 5, "dropout": 0.25}}
    runner.train(toy_task.Votes(), toy_task.recipe(tmp_path / "run", max_steps=1, model=model))
    encoder = toy_task.Voter.from_pretrained(tmp_path / "run").config.encoder
    assert (encoder.num_latents, encoder.dropout, encoder.latent_channels) == (5, 0.25, 8)


def test_resuming_with_other_model_settings_is_refused(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    model = {"encoder": {"num_latents": 5}}
    recipe = toy_task.recipe(trained[0], num_epochs=3, resume=True, model=model)
    with pytest.raises(ValueError, match=r"other settings \(model.encoder.num_latents None -> 5\)"):
        runner.train(toy_task.Votes(), recipe)


def test_fine_tuning_starts_from_the_weights(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path, _ = trained
    recipe = toy_task.recipe(tmp_path / "run", pretrained=str(path), max_steps=1, learning_rate=1e-12)
    runner.train(toy_task.Votes(), recipe)
    before, after = weights(path), weights(tmp_path / "run")
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    wrong = toy_task.recipe(
        tmp_path / "other", pretrained=str(path), model={"encoder": {"latent_channels": 16}}
    )
    with pytest.raises(ValueError, match=r"weights do not fit the settings.*other shapes"):
        runner.train(toy_task.Votes(), wrong)
    assert os.listdir(tmp_path) == ["run"]


def test_results_and_pictures_are_the_tasks(tmp_path: Path) -> None:
    class Counting(toy_task.Votes):
        def results(self, setup: Setup, values: Mapping[str, Any]) -> dict[str, Any]:
            return {"classes": setup.model.config.outputs["label"].num_classes, "names": sorted(values)}

        def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
            return {"votes.png": lambda path: path.write_text(f"{results['test_samples']} votes")}  # type: ignore[dict-item,return-value]

    path = tmp_path / "run"
    metrics = runner.train(Counting(), toy_task.recipe(path, max_steps=2))
    assert metrics["classes"] == 2 and metrics["names"] == ["hits", "loss"]
    assert (path / "votes.png").read_text() == "9 votes"
    assert json.loads((path / "metrics.json").read_text()) == metrics
    assert {name for name in os.listdir(path) if name[0] != "."} == {
        *(
            "README.md",
            "checkpoints",
            "config.json",
            "learning_curve.png",
            "metrics.json",
            "model.safetensors",
        ),
        *("recipe.yaml", "votes.png"),
    }
    card = (path / "README.md").read_text()
    assert (
        f"| test_samples | {metrics['test_samples']} |" in card
        and f"{metrics['parameters']:,} parameters" in card
    )


def test_measures_of_several_numbers_are_lists_by_default(tmp_path: Path) -> None:
    values = {"loss": torch.tensor(1.0), "by_class": torch.tensor([0.25, 0.5])}
    setup = Setup(recipe=None, data=toy_task.Votes().data(toy_task.recipe()), model=None)
    assert toy_task.Votes().results(setup, values) == {"by_class": [0.25, 0.5]}


@pytest.mark.parametrize(
    ("best_metric", "measure", "kept"), [("loss", None, True), ("hits", "hits", True), ("none", None, False)]
)
def test_the_learning_curve_marks_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best_metric: str, measure: str | None, kept: bool
) -> None:
    calls = []

    def draw(history: Any, path: Path, **kwargs: Any) -> None:
        calls.append(kwargs)
        learning_curve.learning_curve_figure(history, **kwargs)
        path.write_bytes(b"png")

    monkeypatch.setattr(runner, "draw_learning_curve", draw)
    recipe = toy_task.recipe(tmp_path / "run", best_metric=best_metric)
    metrics = runner.train(toy_task.Votes(), recipe)
    assert calls == [{"measure": measure, "kept_step": metrics["best_step"] if kept else 8}]


def test_a_task_that_writes_no_files_is_given_no_folder(trained: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="votes writes no files: leave out --output-dir"):
        runner.predict(toy_task.Votes(), trained[0], ["a"], PredictOptions(output_dir="x"))


def test_a_task_without_a_view_of_its_inputs_says_so(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="'votes' does not say what its model sees"):
        runner.attention(toy_task.Votes(), trained[0], ["a"], tmp_path / "maps.png")


def test_describing_a_result(trained: tuple[Path, dict[str, Any]]) -> None:
    line = toy_task.Votes().describe_results(
        {"split": "test", "test_loss": 0.123456, "test_hits": 0.5, "test_samples": 9, "by_class": [1]}
    )
    assert line == "test loss 0.1235, hits 0.5, 9 samples"
    assert toy_task.Votes().describe_prediction({"file": "a", "p": [0.25, 1 / 3]}) == "file a  p 0.25 0.3333"


def test_the_run_is_complete_at_its_end_only(tmp_path: Path) -> None:
    class Failing(toy_task.Votes):
        def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
            def draw(path: Path) -> None:
                raise OSError(28, "No space left on device")

            return {"votes.png": draw}

    recipe = toy_task.recipe(tmp_path / "run", max_steps=2)
    with pytest.raises(OSError, match="No space left on device"):
        runner.train(Failing(), recipe)
    assert not RunFolder(tmp_path / "run").is_complete
    resumed = runner.train(toy_task.Votes(), toy_task.recipe(tmp_path / "run", max_steps=2, resume=True))
    assert resumed["steps"] == 2 and RunFolder(tmp_path / "run").metrics() == resumed


@pytest.mark.parametrize("changes", [{}, {"evaluate_every": 2}])
def test_each_evaluation_comes_with_the_training_loss_of_its_own_steps(
    tmp_path: Path, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    each = runner.train(toy_task.Votes(), toy_task.recipe(tmp_path / "each", log_every=1, **changes))
    capsys.readouterr()
    rare = runner.train(toy_task.Votes(), toy_task.recipe(tmp_path / "rare", log_every=50, **changes))
    losses = {entry["step"]: entry["loss"] for entry in each["history"] if "loss" in entry}
    evaluations = [entry["step"] for entry in rare["history"] if "eval_loss" in entry]
    assert evaluations == ([2, 4, 6, 8] if changes else [4, 8])
    expected = {
        step: sum(losses[one] for one in range(before + 1, step + 1)) / (step - before)
        for before, step in zip([0, *evaluations[:-1]], evaluations, strict=True)
    }
    found = {entry["step"]: entry["loss"] for entry in rare["history"] if "loss" in entry}
    assert found == pytest.approx(expected)
    lines = [line for line in capsys.readouterr().err.splitlines() if "validation loss" in line]
    assert [line.partition("training loss ")[2][:6] for line in lines] == [
        f"{loss:.4f}" for loss in expected.values()
    ]


def test_a_measure_that_is_no_number_is_null_in_files(tmp_path: Path) -> None:
    recipe = toy_task.recipe(tmp_path / "run", max_steps=2, best_metric="none")
    task = ScriptedVotes(HigherIsBetter, [float("inf"), float("nan")])
    metrics = runner.train(task, recipe)
    assert math.isnan(metrics["test_mae"])

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = (tmp_path / "run" / "metrics.json").read_text()
    stored = json.loads(text, parse_constant=refuse)
    assert stored["test_mae"] is None and stored["history"][1]["eval_mae"] is None
    again = runner.train(
        task, toy_task.recipe(tmp_path / "run", max_steps=2, best_metric="none", resume=True)
    )
    assert again == stored
    assert task.describe_results(again) == task.describe_results(metrics)
    assert "mae nan" in task.describe_results(again)
