"""Rows of images, one below the other.

Shape legend: F image channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from perceiver_io.media.images import write_image
from perceiver_io.pictures.sheet import Sheet, scaled

__all__ = ["draw_image_rows"]


def draw_image_rows(rows: Sequence[tuple[str, Sequence[Tensor]]], path: Path, *, tile: int = 96) -> None:
    """Draws rows of images, each below its name.

    Args:
        rows: Names, and (F, H, W) uint8 images of 1 or 3 channels.
        path: The PNG to write.
        tile: Pixels of the longer side of an image that is drawn.
    """
    sheet = Sheet()
    for name, images in rows:
        sheet.line(name)
        panels = [one.expand(3, -1, -1).permute(1, 2, 0).numpy() for one in images]
        sizes = [
            tuple(max(1, round(side * tile / max(one.shape[:2]))) for side in (one.shape[1], one.shape[0]))
            for one in panels
        ]
        sheet.row([scaled(one, (size[0], size[1])) for one, size in zip(panels, sizes, strict=True)])
    write_image(path, sheet.picture())
