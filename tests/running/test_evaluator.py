from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics import MeanMetric, Metric
from transformers import set_seed
from transformers.modeling_outputs import ImageClassifierOutput

from perceiver_io.data import Splits
from perceiver_io.running import Setup
from perceiver_io.running.evaluator import evaluate_rows, num_threads, to_device
from perceiver_io.running.measures import mean_metric, scalars, whether_higher_is_better
from perceiver_io.running.task import Collate

from . import toy, toy_task


def votes(**changes: Any) -> Setup:
    task, recipe = toy_task.Votes(), toy_task.recipe(**changes)
    data = task.data(recipe)
    set_seed(0)
    return Setup(recipe=recipe, data=data, model=toy_task.Voter(task.config(recipe, data)))


def all_at_once(setup: Setup, rows: Sequence[Any]) -> tuple[float, float]:
    batch = toy_task.collate([rows[index] for index in range(len(rows))])
    setup.model.eval()
    with torch.no_grad():
        logits = setup.model(batch["tokens"]).logits.double().numpy()
    labels = batch["labels"].numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return float(-log_p[np.arange(len(labels)), labels].mean()), float((logits.argmax(1) == labels).mean())


@pytest.mark.parametrize("eval_batch_size", [1, 4, 7, 9, 100])
def test_a_smaller_last_batch_weighs_less(eval_batch_size: int) -> None:
    setup = votes(eval_batch_size=eval_batch_size)
    rows = setup.data.test
    assert len(rows) == 9
    loss, hits = all_at_once(setup, rows)
    found = scalars(evaluate_rows(toy_task.Votes(), setup, rows))
    assert found == {"loss": pytest.approx(loss, abs=1e-6), "hits": pytest.approx(hits)}


def test_the_task_says_what_a_loss_weighs() -> None:
    class Ones(toy_task.Votes):
        """As a task whose loss is a mean over something else than rows: here, over the texts of class 1."""

        def weight(self, batch: Mapping[str, Any]) -> torch.Tensor:
            return batch["labels"].sum()

    setup = votes()
    batches = [
        toy_task.collate([setup.data.test[index] for index in indices])
        for indices in (range(4), range(4, 8), range(8, 9))
    ]
    setup.model.eval()
    with torch.no_grad():
        losses = [setup.model(**batch).loss.item() for batch in batches]
    weights = [int(batch["labels"].sum()) for batch in batches]
    assert len(set(weights)) > 1
    found = evaluate_rows(Ones(), setup, setup.data.test)["loss"]
    assert float(found) == pytest.approx(np.average(losses, weights=weights), abs=1e-6)


def test_the_model_is_evaluated_without_dropout_and_left_as_it_was() -> None:
    setup = toy.setup(toy.recipe(Path("unused")))
    for training in (True, False):
        setup.model.train(training)
        first, second = (evaluate_rows(toy.Toys(), setup, setup.data.test) for _ in range(2))
        assert first == second
        assert setup.model.training is training
    assert all(parameter.grad is None for parameter in setup.model.parameters())


def test_the_precision_is_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed: list[bool] = []
    forward = toy_task.Voter.forward

    def watched(self: toy_task.Voter, **batch: Any) -> Any:
        mixed.append(torch.is_autocast_enabled("cpu"))
        return forward(self, **batch)

    monkeypatch.setattr(toy_task.Voter, "forward", watched)
    losses = {}
    for precision in ("float32", "bf16"):
        setup = votes(precision=precision)
        losses[precision] = float(evaluate_rows(toy_task.Votes(), setup, setup.data.test)["loss"])
        assert setup.model.dtype == torch.float32
    assert mixed == [False] * 3 + [True] * 3
    assert losses["bf16"] != losses["float32"]
    assert losses["bf16"] == pytest.approx(losses["float32"], abs=0.02)


def test_workers_change_nothing() -> None:
    results = [
        evaluate_rows(toy_task.Votes(), setup, setup.data.test) for setup in (votes(), votes(num_workers=2))
    ]
    assert results[0] == results[1]


def test_what_is_called_instead_of_the_model_is_called() -> None:
    setup = votes()
    seen = []

    def forward(**batch: Any) -> Any:
        seen.append(len(batch["labels"]))
        return setup.model(**batch)

    evaluate_rows(toy_task.Votes(), setup, setup.data.test, forward=forward)
    assert seen == [4, 4, 1]


def test_a_model_without_a_loss_is_measured() -> None:
    class Unsupervised(toy_task.Votes):
        def collator(self, setup: Setup, *, train: bool) -> Collate:
            return lambda rows: {"tokens": toy_task.collate(rows)["tokens"]}

        def update(self, measures: Mapping[str, Metric], output: Any, batch: Mapping[str, Any]) -> None:
            measures["hits"].update(output.logits.argmax(-1).float())

    setup = votes()
    values = scalars(evaluate_rows(Unsupervised(), setup, setup.data.test))
    assert set(values) == {"hits"} and 0 <= values["hits"] <= 1


# Dense outputs

PIXELS = 1_000_000


class DenseModel(toy.ToyModel):
    def forward(self, values: torch.Tensor, labels: torch.Tensor) -> ImageClassifierOutput:
        dense = values[:, None] + torch.linspace(0, 1, PIXELS)
        return ImageClassifierOutput(loss=(dense[:, 0] - labels).abs().mean(), logits=dense)


class Dense(toy.Toys):
    """Every output is as large as a picture's; what is measured is a mean over all its elements."""

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        return lambda rows: {
            "values": torch.tensor([float(row) for row in rows]),
            "labels": torch.zeros(len(rows)),
        }

    def measures(self, setup: Setup) -> dict[str, Metric]:
        return {"mean": mean_metric(higher_is_better=False), "theirs": MeanMetric()}

    def update(self, measures: Mapping[str, Metric], output: Any, batch: Mapping[str, Any]) -> None:
        measures["mean"].update(output.logits.mean(dim=1))
        measures["theirs"].update(output.logits.mean(dim=1))


def test_dense_outputs_take_constant_memory() -> None:
    recipe = toy.recipe(Path("unused"), eval_batch_size=2, num_threads=1)
    rows = range(1000)
    setup = Setup(
        recipe=recipe,
        data=Splits(train=rows, validation=rows, test=rows),
        model=DenseModel(toy.ToyConfig()),
    )

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    evaluate_rows(Dense(), setup, range(100))
    before = peak()
    values = scalars(evaluate_rows(Dense(), setup, rows))
    # All outputs together would be 4 GB.
    assert peak() - before < 50e6
    assert values["mean"] == pytest.approx(999 / 2 + 0.5, rel=1e-6)
    assert values["loss"] == pytest.approx(999 / 2, rel=1e-6)


# Measures


def test_weighted_means_agree_with_numpy() -> None:
    rng = np.random.default_rng(0)
    metric, values, weights = mean_metric(higher_is_better=True), [], []
    for size in (1, 5, 3):
        values.append(rng.normal(size=size).astype(np.float32))
        weights.append(rng.uniform(size=size).astype(np.float32))
        metric.update(torch.from_numpy(values[-1]), weight=torch.from_numpy(weights[-1]))
    metric.update(torch.tensor(2.0), weight=7)
    metric.update(torch.tensor([[1.0, 2.0]]))
    expected = np.average(
        np.concatenate([*values, [2.0, 1.0, 2.0]]), weights=np.concatenate([*weights, [7.0, 1.0, 1.0]])
    )
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-7)
    assert metric.higher_is_better is True
    metric.reset()
    metric.update(torch.tensor(3.0))
    assert float(metric.compute()) == 3


def test_a_mean_of_something_that_is_no_number_is_none() -> None:
    metric = mean_metric(higher_is_better=False)
    metric.update(torch.tensor([1.0, float("nan")]))
    assert np.isnan(float(metric.compute()))


def test_millions_of_values_do_not_drown_in_their_sum() -> None:
    metric = mean_metric(higher_is_better=False)
    for _ in range(10):
        metric.update(torch.full((10,), 0.1), weight=1e7)
    metric.update(torch.tensor(1.0), weight=1.0)
    assert float(metric.compute()) == pytest.approx((1e9 * float(np.float32(0.1)) + 1) / (1e9 + 1), rel=1e-12)


def test_directions() -> None:
    measures = {
        "error": mean_metric(higher_is_better=False),
        "hits": mean_metric(higher_is_better=True),
        "theirs": MeanMetric(),
    }
    assert whether_higher_is_better("hits", measures) is True
    assert whether_higher_is_better("error", measures) is False
    assert whether_higher_is_better("loss", measures) is False
    for name, problem in (("theirs", "is better in no direction"), ("speed", "is not measured")):
        with pytest.raises(
            ValueError,
            match=rf"best_metric is '{name}', which {problem}. Choose from loss, error, hits, none\.",
        ):
            whether_higher_is_better(name, measures)


def test_only_single_numbers_are_scalars() -> None:
    values = {"a": torch.tensor(2.0), "b": torch.tensor([3.0]), "c": torch.zeros(2, 2), "d": 4}
    assert scalars(values) == {"a": 2.0, "b": 3.0, "d": 4.0}


def test_nested_batches_are_moved() -> None:
    batch = {"a": torch.zeros(2), "b": {"c": torch.ones(1), "d": "text"}, "e": None}
    moved = to_device(batch, torch.device("meta"))
    assert moved["a"].is_meta and moved["b"]["c"].is_meta
    assert moved["b"]["d"] == "text" and moved["e"] is None


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), num_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError
    assert torch.get_num_threads() == before
    with num_threads(None):
        assert torch.get_num_threads() == before
