from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix
from transformers.modeling_outputs import ImageClassifierOutput

from perceiver_io.data import Splits
from perceiver_io.running import LoadedModel, Setup
from perceiver_io.tasks import image_classification as ic
from perceiver_io.tasks.classification import ClassPredictOptions
from perceiver_io.tasks.classification.report import per_class_report
from perceiver_io.tasks.image_classification.task import ImageClassificationTask


def setup(num_classes: int) -> Setup:
    names = tuple(f"class {index}" for index in range(num_classes))
    return Setup(
        recipe=None, data=Splits(train=[0], validation=None, test=[0], class_names=names), model=None
    )


def measured(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """What batches of three give, all in all."""
    task, of = ImageClassificationTask(), setup(logits.shape[1])
    measures = task.measures(of)
    for start in range(0, len(labels), 3):
        part = slice(start, start + 3)
        batch: Mapping[str, Any] = {"labels": torch.from_numpy(labels[part])}
        # In half precision, as under bf16: what is measured is computed in float32.
        output = ImageClassifierOutput(logits=torch.from_numpy(logits[part]).to(torch.bfloat16))
        task.update(measures, output, batch)
    return {name: metric.compute() for name, metric in measures.items()}


def random_logits(count: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    # All differ in bfloat16 too, so that no tie is broken in another way.
    logits = np.stack([rng.permutation(num_classes) for _ in range(count)]).astype(np.float32)
    return logits, rng.integers(0, num_classes, count)


def test_accuracy_of_few_classes() -> None:
    logits = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [5.0, 4.0]], dtype=np.float32)
    values = measured(logits, np.array([0, 1, 1, 0]))
    assert values.keys() == {"accuracy", "confusion"}
    assert float(values["accuracy"]) == 0.75


@pytest.mark.parametrize("num_classes", [6, 12])
def test_accuracies_of_many_classes(num_classes: int) -> None:
    logits, labels = random_logits(200, num_classes)
    values = measured(logits, labels)
    assert values.keys() == {"accuracy", "top5_accuracy", "confusion"}
    assert float(values["accuracy"]) == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    is_among_five = [label in np.argsort(row)[-5:] for row, label in zip(logits, labels, strict=True)]
    assert float(values["top5_accuracy"]) == pytest.approx(np.mean(is_among_five))


def test_confusion_has_true_classes_as_rows() -> None:
    logits, labels = random_logits(100, 4)
    expected = confusion_matrix(labels, logits.argmax(1), labels=range(4))
    np.testing.assert_array_equal(measured(logits, labels)["confusion"].numpy(), expected)
    results = ImageClassificationTask().results(setup(4), measured(logits, labels))
    assert results["confusion"] == expected.tolist()
    assert list(results["per_class"]) == ["class 0", "class 1", "class 2", "class 3"]


def test_the_report_agrees_with_scikit_learn() -> None:
    logits, labels = random_logits(60, 7)
    labels[labels == 3] = 2  # a class without samples
    predictions = logits.argmax(1)
    predictions[predictions == 5] = 4  # and one that is never predicted
    names = [f"class {index}" for index in range(7)]
    report = per_class_report(confusion_matrix(labels, predictions, labels=range(7)), names)
    expected = classification_report(
        labels, predictions, labels=range(7), target_names=names, output_dict=True, zero_division=0
    )
    assert list(report) == names
    for name in names:
        for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert report[name][ours] == pytest.approx(expected[name][theirs]), (name, ours)
        assert report[name]["samples"] == expected[name]["support"]


def test_per_class_report() -> None:
    confusion = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    report = per_class_report(confusion, ["cat", "dog", "accuracy", "never seen"])
    assert report["cat"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "samples": 2}
    assert report["dog"] == {"precision": pytest.approx(1 / 3), "recall": 1.0, "f1": 0.5, "samples": 1}
    assert report["accuracy"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "samples": 1}
    assert report["never seen"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "samples": 0}


def test_a_class_for_nearly_every_sample() -> None:
    logits, labels = np.eye(100, dtype=np.float32)[:60], np.arange(60)
    confusion = measured(logits, labels)["confusion"].numpy()
    assert confusion.trace() == confusion.sum() == 60
    report = per_class_report(confusion, [str(label) for label in range(100)])
    assert report["59"]["recall"] == 1 and report["60"]["samples"] == 0


def test_the_most_probable_classes_come_first(tmp_path: Path) -> None:
    model = ic.PerceiverIOForImageClassification(
        ic.config(variant="tiny", size=(8, 8), image_channels=1, class_names=["a", "b", "c"])
    ).eval()
    processor = ic.PerceiverIOImageProcessor(size=(8, 8), num_channels=1)
    loaded = LoadedModel(model=model, processor=processor, source="here")
    files = []
    for level in (0, 200):
        files.append(str(tmp_path / f"{level}.png"))
        Image.new("L", (8, 8), level).save(files[-1])
    task = ImageClassificationTask()
    with torch.no_grad():
        logits = (
            model(processor([Image.open(file) for file in files])["pixel_values"]).logits.double().numpy()
        )
    for row, found in zip(logits, task.predict(loaded, files, ClassPredictOptions(top_k=2)), strict=True):
        exp, order = np.exp(row), np.argsort(-row)
        assert [one["label"] for one in found["labels"]] == ["abc"[index] for index in order[:2]]
        expected = (exp / exp.sum())[order[:2]]
        assert [one["probability"] for one in found["labels"]] == pytest.approx(list(expected), rel=1e-5)
    (most,) = task.predict(loaded, files[:1], ClassPredictOptions(top_k=9))
    assert len(most["labels"]) == 3
    with torch.no_grad():
        model.perceiver.decoders["label"].output.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="not numbers: its weights are damaged"):
        task.predict(loaded, files, ClassPredictOptions())


@pytest.mark.parametrize("top_k", [0, -1])
def test_bad_options(top_k: int) -> None:
    with pytest.raises(ValueError, match=f"top_k is {top_k}, expected 1 or more"):
        ClassPredictOptions(top_k=top_k)
