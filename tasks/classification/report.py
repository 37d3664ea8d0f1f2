"""Precision, recall and F1 of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["per_class_report"]


def per_class_report(
    confusion: npt.NDArray[np.integer[Any]], class_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Computes precision, recall and F1 of each class from a confusion matrix.

    Args:
        confusion: (K, K) counts; rows are true classes, columns predicted ones.
        class_names: Names, by class index.

    Returns:
        For each class name ``precision``, ``recall``, ``f1`` (0 where they are undefined) and ``samples``, the number
        of samples of the class.
    """
    hits = confusion.diagonal().astype(float)
    true, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    columns = {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(true, 1),
        "f1": 2 * hits / np.maximum(true + predicted, 1),
    }
    return {
        name: {
            **{column: float(values[index]) for column, values in columns.items()},
            "samples": int(true[index]),
        }
        for index, name in enumerate(class_names)
    }
