"""How far a flow field is from the truth.

Shape legend: B batch, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from perceiver_io.tasks.optical_flow.checks import check_valid
from perceiver_io.value_checks import looks_at

__all__ = ["end_point_error", "flow_metrics", "mean_end_point_error"]

# KITTI 2015: an outlier is off by more than 3 pixels and by more than 5 % of the true length.
_OUTLIER_PIXELS = 3.0
_OUTLIER_SHARE = 0.05


def end_point_error(flow: Tensor, target: Tensor) -> Tensor:
    """Returns the distance in pixels between where each pixel goes and where it should go.

    Args:
        flow: (2, H, W) or (B, 2, H, W).
        target: The true flow, in the same shape.

    Returns:
        (H, W) or (B, H, W).

    Raises:
        ValueError: The shapes differ, or are others.
    """
    if flow.shape != target.shape or flow.ndim not in (3, 4) or flow.shape[-3] != 2:
        raise ValueError(
            "Flow and true flow must both be (2, height, width), or a batch of these, got "
            f"{tuple(flow.shape)} and {tuple(target.shape)}."
        )
    return torch.linalg.vector_norm(flow - target, dim=-3)


def mean_end_point_error(flow: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Returns the mean end-point error over all pixels whose flow is known; it has gradients.

    Args:
        flow: (2, H, W) or (B, 2, H, W).
        target: The true flow, in the same shape. What it holds where it is not known does not matter.
        valid: (H, W) or (B, H, W) bool, True where the true flow is known; everywhere if None.

    Returns:
        A scalar.

    Raises:
        ValueError: The shapes do not fit, the true flow is known nowhere, or is not finite where it is known.
    """
    check_valid(valid, target)
    if valid is not None:
        # Both, so that no NaN gets into the gradient.
        known = valid.unsqueeze(-3)
        flow, target = torch.where(known, flow, 0), torch.where(known, target, 0)
    error = end_point_error(flow, target)
    if looks_at(target):
        if valid is not None and not valid.any():
            raise ValueError(
                "The true flow is known nowhere: there is nothing to compare with. Leave this sample out."
            )
        if not target.isfinite().all():
            raise ValueError(
                "The true flow is not finite everywhere: mark what is unknown as False in valid."
            )
    return error.mean() if valid is None else error.sum() / valid.sum()


def flow_metrics(flow: Tensor, target: Tensor, valid: Tensor | None = None) -> dict[str, float]:
    """Returns the metrics of the benchmarks Sintel and KITTI 2015.

    Args:
        flow: (2, H, W) or (B, 2, H, W) in pixels.
        target: The true flow, in the same shape.
        valid: (H, W) or (B, H, W) bool, True where the true flow is known; everywhere if None.

    Returns:
        `end_point_error`, the mean in pixels (EPE), and `outliers`, the share of pixels from 0 to 1 that are off by
        more than 3 pixels and more than 5 % of the true motion (Fl).

    Raises:
        ValueError: As `mean_end_point_error`.
    """
    flow, target = flow.detach().double(), target.detach().double()
    mean = mean_end_point_error(flow, target, valid)
    error = end_point_error(flow, target)
    length = torch.linalg.vector_norm(target, dim=-3)
    outliers = (error > _OUTLIER_PIXELS) & (error > _OUTLIER_SHARE * length)
    outliers = outliers if valid is None else outliers[valid]
    return {"end_point_error": mean.item(), "outliers": outliers.double().mean().item()}
