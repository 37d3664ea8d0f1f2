"""How close a reconstruction comes to what was put in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from perceiver_io.extras import require

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["psnr", "psnr_metric"]


def psnr(prediction: npt.NDArray[Any], target: npt.NDArray[Any], *, peak: float = 1.0) -> float:
    """Computes the peak signal-to-noise ratio: 10 log10(peak² / mean squared error).

    Args:
        prediction: Values of any shape.
        target: Values of the same shape.
        peak: The largest value: 1 for sound in [-1, 1] and pictures in [0, 1], 255 for uint8 pictures.

    Returns:
        Decibels; infinity if both are equal.

    Raises:
        ValueError: The shapes differ, there are no values, or the peak is not positive.
    """
    if prediction.shape != target.shape or not prediction.size:
        raise ValueError(
            f"PSNR compares arrays of one shape with at least one value, got {prediction.shape} and {target.shape}."
        )
    if peak <= 0:
        raise ValueError(f"peak is {peak}, expected a number above zero.")
    squared = np.square(prediction.astype(np.float64) - target.astype(np.float64))
    error = float(squared.mean())
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def psnr_metric() -> Metric:
    """Returns the peak signal-to-noise ratio as a stream: of the mean squared error of all values, whose peak is 1.

    `update(prediction, target, known=None)`, where `known` is bool and of their shape. What `torchmetrics` has adds up
    in float32, and takes no mask. It is NaN where nothing was known.
    """
    base: Any = require("torchmetrics", extra="train").Metric

    class PSNR(base):
        higher_is_better = True
        full_state_update = False

        def __init__(self) -> None:
            super().__init__()
            for name in ("squares", "count"):
                self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

        def update(self, prediction: Tensor, target: Tensor, known: Tensor | None = None) -> None:
            squares = (prediction.detach().double() - target.double()).square()
            self.squares += (squares if known is None else torch.where(known, squares, 0)).sum()
            self.count += squares.numel() if known is None else known.sum()

        def compute(self) -> Tensor:
            return -10 * torch.log10(self.squares / self.count)

    metric: Metric = PSNR()
    return metric
