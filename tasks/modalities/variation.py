"""What values are varied with in training. All random numbers are of PyTorch's global generator."""

from __future__ import annotations

import torch

from perceiver_io.component import ComponentConfig

__all__ = ["check_fractions", "uniform"]


def uniform(low: float, high: float) -> float:
    """Draws a number."""
    return low + (high - low) * float(torch.rand(()))


def check_fractions(settings: ComponentConfig, *names: str) -> None:
    """Checks that settings lie from 0 to 1, the end left out.

    Raises:
        ValueError: One does not.
    """
    for name in names:
        if not 0 <= getattr(settings, name) < 1:
            raise ValueError(
                f"{type(settings).__qualname__}.{name} is {getattr(settings, name)}, expected a fraction: at least 0, "
                "less than 1."
            )
