"""Images, and what a model makes of their latents.

Shape legend: F image channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from perceiver_io.media.images import write_image
from perceiver_io.pictures.sheet import Sheet, scaled

__all__ = ["as_uint8", "draw_pairs"]

_TILE = 96


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
    sheet = Sheet()
    for name, row in (("images", images), ("reconstructed from the latents", made)):
        sheet.line(name)
        panels = [one.expand(3, -1, -1).permute(1, 2, 0).numpy() for one in row]
        sizes = [
            (max(1, round(one.shape[1] * _TILE / max(one.shape[:2]))), _height(one.shape[:2]))
            for one in panels
        ]
        sheet.row([scaled(one, size) for one, size in zip(panels, sizes, strict=True)])
    write_image(path, sheet.picture())


def _height(size: Sequence[int]) -> int:
    return max(1, round(size[0] * _TILE / max(size)))
