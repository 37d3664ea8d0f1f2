"""Depths in colours: near is light, far is dark.

Shape legend: F image channels, H height, W width, N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.extras import require
from perceiver_io.media.images import write_image
from perceiver_io.pictures.sheet import Sheet, scaled

__all__ = ["draw_depths", "in_colours"]

_TILE = 176
_ENDS = (0.02, 0.95)  # a few pixels far away would leave all others in one colour


def in_colours(depth_HW: NDArray[np.float32], nearest: float, farthest: float) -> NDArray[np.uint8]:
    """Colours depths from yellow (near) to dark violet (far); what is not known is grey.

    Args:
        depth_HW: The depths; NaN is not known.
        nearest: What is yellow.
        farthest: What is violet.

    Returns:
        (H, W, 3) RGB values.
    """
    span = max(farthest - nearest, 1e-12)
    part_HW = np.clip((farthest - np.nan_to_num(depth_HW, nan=farthest)) / span, 0, 1)
    colours_HW4 = require("matplotlib", extra="train").colormaps["plasma"](part_HW)
    colours_HW3 = np.round(255 * colours_HW4[..., :3]).astype(np.uint8)
    return np.where(np.isnan(depth_HW)[..., None], np.uint8(128), colours_HW3)


def draw_depths(
    images: Sequence[Tensor],
    true_NHW: NDArray[np.float32],
    predicted_NHW: NDArray[np.float32],
    path: Path,
) -> None:
    """Draws images with their true and predicted depths.

    Args:
        images: (F, H, W), uint8.
        true_NHW: True depths, NaN where they are not known.
        predicted_NHW: What a model gives.
        path: The PNG to write.
    """
    known = true_NHW[~np.isnan(true_NHW)]
    ends = tuple(np.quantile(known, _ENDS).tolist()) if known.size else (0.0, 1.0)
    sheet = Sheet()
    for place, (pixels_FHW, true_HW, found_HW) in enumerate(
        zip(images, true_NHW, predicted_NHW, strict=True)
    ):
        height, width = true_HW.shape
        size = (
            max(1, round(width * _TILE / max(height, width))),
            max(1, round(height * _TILE / max(height, width))),
        )
        panels = [
            pixels_FHW.expand(3, -1, -1).permute(1, 2, 0).numpy(),
            in_colours(true_HW, *ends),
            in_colours(found_HW, *ends),
        ]
        captions = ["image", "true depth", "predicted"] if place == 0 else []
        sheet.row([scaled(panel, size) for panel in panels], captions=captions)
    sheet.line(
        f"yellow: {ends[0]:.3g} or nearer, violet: {ends[1]:.3g} or farther, grey: not known", muted=True
    )
    write_image(path, sheet.picture())
