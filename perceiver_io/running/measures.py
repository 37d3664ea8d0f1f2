"""Measures: streams of totals, each with the direction in which it is better.

A measure is a `torchmetrics.Metric`: it is updated batch by batch, keeps totals alone, adds them up over processes, and
is computed at the end. Its `higher_is_better` says which checkpoint it would keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from perceiver_io.extras import require

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["LOSS", "mean_metric", "scalars", "whether_higher_is_better"]

LOSS = "loss"
"""The measure that every task has: the loss of the model."""


def mean_metric(*, higher_is_better: bool) -> Metric:
    """Returns a weighted mean that knows its direction: `update(values, weight=1.0)`.

    `torchmetrics.MeanMetric` has no direction, and of NaN it either drops them or forgets the weights; this one is NaN
    then. Its totals are in float64: millions of values are added up.

    Args:
        higher_is_better: The direction.
    """
    base: Any = require("torchmetrics", extra="train").Metric

    class Mean(base):
        full_state_update = False

        def __init__(self) -> None:
            super().__init__()
            for name in ("total", "weight"):
                self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

        def update(self, values: torch.Tensor, weight: float | torch.Tensor = 1.0) -> None:
            values = values.detach().to(torch.float64)
            weights = torch.as_tensor(weight, dtype=torch.float64, device=values.device).expand_as(values)
            self.total += (values * weights).sum()
            self.weight += weights.sum()

        def compute(self) -> torch.Tensor:
            return self.total / self.weight

    Mean.higher_is_better = higher_is_better
    metric: Metric = Mean()
    return metric


def whether_higher_is_better(name: str, measures: Mapping[str, Metric]) -> bool:
    """Returns the direction of a measure that is to choose the best checkpoint.

    Args:
        name: Its name; "loss" is always there.
        measures: The task's measures.

    Raises:
        ValueError: There is no such measure, or it has no direction.
    """
    directions = {LOSS: False, **{one: metric.higher_is_better for one, metric in measures.items()}}
    known = [one for one, direction in directions.items() if direction is not None]
    if name not in known:
        problem = "is better in no direction" if name in directions else "is not measured"
        raise ValueError(
            f"best_metric is {name!r:.80}, which {problem}. Choose from {', '.join(known)}, none."
        )
    return bool(directions[name])


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns those of the computed measures that are one number."""
    return {
        name: float(value)
        for name, value in values.items()
        if not isinstance(value, torch.Tensor) or value.numel() == 1
    }
