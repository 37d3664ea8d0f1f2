"""Losses of dense outputs: of a sample the mean over what is known of it, of a batch the mean over its samples.

So every sample counts the same, however much of it is known, and a loss at points that were drawn at random is
unbiased.

Shape legend: B batch, O points, or all elements of a grid; K classes, V values of an element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from perceiver_io.value_checks import looks_at

__all__ = [
    "UNKNOWN",
    "Difference",
    "absolute_difference",
    "absolute_loss",
    "class_loss",
    "mean_of_samples",
    "number_loss",
    "squared_difference",
    "squared_loss",
]

Difference: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Of numbers and the true ones, both of one shape: how far each is off."""

UNKNOWN = -100
"""The label of an element whose class is not known, as `torch.nn.functional.cross_entropy` has it."""


def class_loss(logits_BKO: Tensor, labels_BO: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy.

    Args:
        logits_BKO: (B, K, …) logits.
        labels_BO: (B, …) int64 classes; `UNKNOWN` where one is not known.
        label_smoothing: Probability spread over all classes.

    Raises:
        ValueError: The labels do not fit.
    """
    expected = (logits_BKO.shape[0], *logits_BKO.shape[2:])
    if not isinstance(labels_BO, Tensor) or labels_BO.is_floating_point() or labels_BO.shape != expected:
        raise ValueError(f"labels must be integers {expected}, got {_found(labels_BO)}.")
    known_BO = labels_BO != UNKNOWN
    num_classes = logits_BKO.shape[1]
    if looks_at(labels_BO) and (known_BO & ((labels_BO < 0) | (labels_BO >= num_classes))).any():
        real = labels_BO[known_BO]
        raise ValueError(
            f"labels must be classes from 0 to {num_classes - 1}, or {UNKNOWN} where they are not known, got "
            f"{int(real.min())} to {int(real.max())}."
        )
    losses_BO = nn.functional.cross_entropy(
        logits_BKO,
        labels_BO.long(),
        ignore_index=UNKNOWN,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return mean_of_samples(losses_BO, known_BO)


def absolute_difference(values: Tensor, labels: Tensor) -> Tensor:
    """How far numbers are apart."""
    return (values - labels).abs()


def squared_difference(values: Tensor, labels: Tensor) -> Tensor:
    """The square of how far numbers are apart."""
    return (values - labels).square()


def absolute_loss(values: Tensor, labels: Tensor) -> Tensor:
    """Mean absolute difference; as `number_loss`."""
    return number_loss(values, labels)


def squared_loss(values: Tensor, labels: Tensor) -> Tensor:
    """Mean squared difference; as `number_loss`."""
    return number_loss(values, labels, difference=squared_difference)


def number_loss(values: Tensor, labels: Tensor, *, difference: Difference = absolute_difference) -> Tensor:
    """Mean difference of numbers.

    Args:
        values: (B, …) numbers.
        labels: The true ones, in the same shape; NaN where one is not known.
        difference: What two numbers are apart; gives the same shape.

    Raises:
        ValueError: The labels do not fit, or are infinite.
    """
    if not isinstance(labels, Tensor) or not labels.is_floating_point() or labels.shape != values.shape:
        raise ValueError(f"labels must be floating-point {tuple(values.shape)}, got {_found(labels)}.")
    known = ~labels.isnan()
    if looks_at(labels) and labels.isinf().any():
        raise ValueError("labels hold infinities. What is not known is NaN.")
    return mean_of_samples(difference(values, torch.where(known, labels, 0)), known)


def mean_of_samples(losses: Tensor, known: Tensor) -> Tensor:
    """Averages over what is known of each sample, then over the samples of which something is.

    Args:
        losses: (B, …).
        known: The same shape, bool.

    Returns:
        A scalar; 0, with gradients of 0, if nothing is known.
    """
    if losses.ndim == 1:
        losses, known = losses[:, None], known[:, None]
    known_BO = known.flatten(1)
    sums_B = torch.where(known_BO, losses.flatten(1), 0).sum(1)
    counts_B = known_BO.sum(1)
    means_B = sums_B / counts_B.clamp(min=1)
    return means_B.sum() / (counts_B > 0).sum().clamp(min=1)


def _found(labels: object) -> str:
    return (
        f"{labels.dtype} {tuple(labels.shape)}"
        if isinstance(labels, Tensor)
        else f"a {type(labels).__name__}"
    )
