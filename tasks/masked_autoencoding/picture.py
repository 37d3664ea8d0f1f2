"""What was hidden of inputs, and what a model makes of it, side by side.

Shape legend: T time frames, F channels or bands, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.media.images import write_image
from perceiver_io.pictures.sheet import Sheet, scaled

__all__ = ["can_draw", "draw_reconstructions", "panel"]

_TILE, _MOST_FRAMES = 128, 3
_HIDDEN = (206, 198, 226)  # no grey level


def can_draw(x: Tensor) -> bool:
    """Says whether `panel` draws raw inputs of this shape."""
    return x.ndim == 2 or (x.ndim in (3, 4) and x.shape[-3] in (1, 3))


def panel(x: Tensor, *, low: float, high: float) -> NDArray[np.uint8]:
    """Draws one raw input: an image, a video as some of its frames, or a spectrogram, its lowest band at the bottom.

    Args:
        x: (F, H, W), (T, F, H, W) or (T, F); NaN for what is not shown.
        low: What is black.
        high: What is white.

    Returns:
        (height, width, 3) RGB values.

    Raises:
        ValueError: It has another shape.
    """
    if not can_draw(x):
        raise ValueError(f"Inputs of the shape {tuple(x.shape)} cannot be drawn.")
    if x.ndim == 2:
        x = x.T.flip(0)[None]
    elif x.ndim == 4:
        count = min(len(x), _MOST_FRAMES)
        x = torch.cat([x[index * len(x) // count] for index in range(count)], dim=-1)
    levels_HWF = ((x - low) / max(high - low, 1e-12)).clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0)
    pixels_HWF = (levels_HWF.nan_to_num() * 255).round().to(torch.uint8).numpy()
    is_hidden_HW = levels_HWF.isnan().any(-1).numpy()
    return np.where(is_hidden_HW[..., None], np.array(_HIDDEN, np.uint8), pixels_HWF)


def draw_reconstructions(rows: Sequence[tuple[Tensor, Tensor, Tensor]], path: Path) -> None:
    """Draws inputs, what was left of them, and what a model makes of that.

    Args:
        rows: For each sample the input, the same with NaN where it is hidden, and the reconstruction.
        path: The PNG to write.

    Raises:
        ValueError: Inputs of such a shape cannot be drawn.
    """
    sheet = Sheet()
    for place, parts in enumerate(rows):
        known = parts[0][~parts[0].isnan()]
        ends = {"low": float(known.min()), "high": float(known.max())}
        panels = [panel(one, **ends) for one in parts]
        captions = ["input", "left", "reconstructed"] if place == 0 else []
        sheet.row([scaled(one, _size(one)) for one in panels], captions=captions)
    write_image(path, sheet.picture())


def _size(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height that a panel is drawn in."""
    height, width = pixels.shape[:2]
    larger = _TILE / min(height, width) if max(height, width) < 3 * min(height, width) else _TILE / height
    larger = min(larger, 4 * _TILE / max(height, width))
    return max(1, round(width * larger)), max(1, round(height * larger))
