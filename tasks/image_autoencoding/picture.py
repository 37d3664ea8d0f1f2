"""Images, and what a model makes of their latents.

Shape legend: F image channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from perceiver_io.tasks.modalities.image_rows import draw_image_rows

__all__ = ["as_uint8", "draw_pairs"]


def as_uint8(pixels_FHW: Tensor) -> Tensor:
    """Returns pixels from 0 to 1 as whole numbers from 0 to 255."""
    return (pixels_FHW.clamp(0, 1) * 255).round().to(torch.uint8)


def draw_pairs(images: Sequence[Tensor], made: Sequence[Tensor], path: Path) -> None:
    """Draws images in a row, and below each what a model makes of it.

    Args:
        images: (F, H, W), uint8.
        made: The same.
        path: The PNG to write.
    """
    draw_image_rows([("images", images), ("reconstructed from the latents", made)], path)
