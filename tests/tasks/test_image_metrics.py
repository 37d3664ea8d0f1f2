from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, top_k_accuracy_score
from transformers import EvalPrediction

from perceiver_io.tasks.image_classification.metrics import compute_metrics, confusion, per_class_report


def test_accuracy_of_few_classes():
    logits = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [5.0, 4.0]])
    assert compute_metrics(EvalPrediction(logits, np.array([0, 1, 1, 0]))) == {"accuracy": 0.75}


def test_accuracies_of_many_classes_agree_with_scikit_learn():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(200, 12)).astype(np.float32), random.integers(0, 12, 200)
    metrics = compute_metrics(EvalPrediction((logits, None), labels))
    assert metrics.keys() == {"accuracy", "top5_accuracy"}
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert metrics["top5_accuracy"] == pytest.approx(
        top_k_accuracy_score(labels, logits, k=5, labels=range(12))
    )


def test_confusion_has_true_classes_as_rows():
    counts = confusion([0, 0, 1, 3], [0, 1, 1, 0], 4)
    np.testing.assert_array_equal(counts, [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])


def test_per_class_report():
    labels, predictions = [0, 0, 1, 2], [0, 1, 1, 1]
    report = per_class_report(labels, predictions, ["cat", "dog", "accuracy", "never seen"])
    assert report["cat"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "images": 2}
    assert report["dog"] == {"precision": pytest.approx(1 / 3), "recall": 1.0, "f1": 0.5, "images": 1}
    assert report["accuracy"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "images": 1}
    assert report["never seen"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "images": 0}
    f1 = f1_score(labels, predictions, average=None)
    np.testing.assert_allclose([row["f1"] for row in report.values()][:3], f1)


def test_a_class_for_nearly_every_image():
    """scikit-learn warns where it takes so many classes for a regression."""
    labels = np.arange(60)
    assert confusion(labels, labels, 100).trace() == 60
    assert per_class_report(labels, labels, [str(label) for label in range(100)])["59"]["recall"] == 1
