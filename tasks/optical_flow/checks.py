"""Checks of flow fields and of the masks that say where they are known."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_flow", "check_valid"]


def check_flow(flow: Tensor, *, name: str = "A flow field") -> None:
    """Checks the type and shape of one flow field.

    Args:
        flow: Expected to be (2, H, W), floating point.
        name: What the message calls it.

    Raises:
        ValueError: It is something else, or empty.
    """
    if not isinstance(flow, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(flow).__name__}.")
    if flow.ndim != 3 or flow.shape[0] != 2 or flow.numel() == 0 or not flow.is_floating_point():
        raise ValueError(
            f"{name} must be (2, height, width), floating point, with the motion to the right and then down, got "
            f"{flow.dtype} {tuple(flow.shape)}."
        )


def check_valid(valid: Tensor | None, flow: Tensor) -> None:
    """Checks the mask of known pixels of a flow field, or of a batch of them; None passes.

    Args:
        valid: Expected to be bool, in the shape of the flow without its axis of channels.
        flow: (2, H, W) or (B, 2, H, W).

    Raises:
        ValueError: It is something else.
    """
    if valid is None:
        return
    expected = (*flow.shape[:-3], *flow.shape[-2:])
    if not isinstance(valid, Tensor) or valid.dtype != torch.bool or tuple(valid.shape) != expected:
        found = f"{valid.dtype} {tuple(valid.shape)}" if isinstance(valid, Tensor) else type(valid).__name__
        raise ValueError(f"valid must be bool {expected} (True = known), got {found}.")
