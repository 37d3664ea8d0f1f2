"""How well images are classified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import EvalPrediction

from perceiver_io.extras import require

__all__ = ["compute_metrics", "confusion", "per_class_report"]


def compute_metrics(eval_prediction: EvalPrediction) -> dict[str, float]:
    """Computes what `transformers.Trainer` reports after an evaluation.

    Args:
        eval_prediction: Logits (N, K) and class indices (N,).

    Returns:
        ``accuracy``, the part of the images whose class has the largest logit; and of more than 5 classes
        ``top5_accuracy``, the part of the images whose class is among the five largest.
    """
    predictions = eval_prediction.predictions
    logits = np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions)
    labels = np.asarray(eval_prediction.label_ids)
    metrics = {"accuracy": float(np.mean(logits.argmax(axis=-1) == labels))}
    if logits.shape[-1] > 5:
        top5 = np.argpartition(logits, -5, axis=-1)[:, -5:]
        metrics["top5_accuracy"] = float(np.mean((top5 == labels[:, None]).any(axis=-1)))
    return metrics


def confusion(labels: npt.ArrayLike, predictions: npt.ArrayLike, num_classes: int) -> npt.NDArray[np.int64]:
    """Counts how often images of each class (row) are taken for each class (column).

    Args:
        labels: Class indices (N,).
        predictions: Predicted class indices (N,).
        num_classes: Number of classes; those without images count too.

    Returns:
        (K, K).
    """
    counts: npt.NDArray[np.int64] = require("sklearn.metrics", extra="train").confusion_matrix(
        labels, predictions, labels=np.arange(num_classes)
    )
    return counts


def per_class_report(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, class_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Computes precision, recall and F1 of each class.

    Args:
        labels: Class indices (N,).
        predictions: Predicted class indices (N,).
        class_names: Names, by class index.

    Returns:
        For each class name ``precision``, ``recall``, ``f1`` (0 where they are undefined) and ``images``, the
        number of images of the class.
    """
    precision, recall, f1, images = require("sklearn.metrics", extra="train").precision_recall_fscore_support(
        labels, predictions, labels=np.arange(len(class_names)), zero_division=0
    )
    return {
        name: {
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
            "images": int(images[index]),
        }
        for index, name in enumerate(class_names)
    }
