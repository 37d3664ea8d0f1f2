"""A picture of a flow field beside the two frames that it was estimated from.

Drawn with Pillow, which comes with reading images anyway.

Shape legend: H height, W width.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.extras import require
from perceiver_io.files import writing
from perceiver_io.tasks.optical_flow.checks import check_flow
from perceiver_io.tasks.optical_flow.colour_wheel import flow_to_colours

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["flow_picture", "write_image"]

_INK, _WHITE = "#1f2430", "#ffffff"
_MARGIN, _CAPTION, _KEY = 12, 20, 96
_PANEL_SIDES = (160, 480)  # what the longer side of a panel is brought to, if it is shorter or longer


def flow_picture(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    flow: Tensor,
    valid: Tensor | None = None,
    *,
    max_magnitude: float | None = None,
) -> Image:
    """Draws two frames, their flow in colours, and the key to the colours.

    Args:
        first: (H, W, 3) RGB values of the first frame.
        second: The same of the second.
        flow: (2, H, W) in pixels.
        valid: (H, W) bool, True where the flow is known; the rest is black.
        max_magnitude: The length in pixels that has the full colour; the longest one if None.

    Raises:
        ValueError: The sizes differ, or the flow cannot be drawn.
        ImportError: Pillow is not installed.
    """
    pil, draw_module = (require(name, extra="image") for name in ("PIL.Image", "PIL.ImageDraw"))
    check_flow(flow)
    shape = (*flow.shape[1:], 3)
    if first.shape != shape or second.shape != shape:
        raise ValueError(f"The frames of this flow must be {shape}, got {first.shape} and {second.shape}.")
    if max_magnitude is None:
        known = flow if valid is None else flow[:, valid]
        max_magnitude = torch.linalg.vector_norm(known, dim=0).max().item() if known.numel() else 0.0
    colours = flow_to_colours(flow, valid, max_magnitude=max_magnitude or None)
    panels = [
        ("first frame", _panel(pil.fromarray(first))),
        ("second frame", _panel(pil.fromarray(second))),
        ("flow", _panel(pil.fromarray(colours))),
        (f"{max_magnitude:.3g} pixels", pil.fromarray(_key(_KEY))),
    ]
    width = _MARGIN + sum(panel.width + _MARGIN for _, panel in panels)
    height = 2 * _MARGIN + _CAPTION + max(panel.height for _, panel in panels)
    sheet: Image = pil.new("RGB", (width, height), _WHITE)
    draw = draw_module.Draw(sheet)
    left = _MARGIN
    for caption, panel in panels:
        draw.text((left, _MARGIN), caption, fill=_INK)
        sheet.paste(panel, (left, _MARGIN + _CAPTION))
        left += panel.width + _MARGIN
    return sheet


def write_image(path: str | os.PathLike[str], image: Image | NDArray[np.uint8]) -> None:
    """Writes a picture as a PNG, whole or not at all.

    Args:
        path: The file.
        image: A Pillow image, or (H, W, 3) RGB values.

    Raises:
        OSError: The file cannot be written.
        ImportError: Pillow is not installed.
    """
    path = Path(path)
    picture: Image = (
        require("PIL.Image", extra="image").fromarray(image) if isinstance(image, np.ndarray) else image
    )
    with writing(path) as partial:
        picture.save(partial, format="PNG")


def _panel(image: Image) -> Image:
    """Brings a picture to a size at which one sees it; whole pixels where it is enlarged."""
    resampling = require("PIL.Image", extra="image").Resampling
    longer = max(image.size)
    shortest, longest = _PANEL_SIDES
    if longer > longest:
        size = [max(1, round(side * longest / longer)) for side in image.size]
        return image.resize((size[0], size[1]), resampling.LANCZOS)
    factor = max(1, shortest // longer)
    return image.resize((image.width * factor, image.height * factor), resampling.NEAREST)


def _key(side: int) -> NDArray[np.uint8]:
    """Draws the colours of all directions, out to the largest magnitude; white around them."""
    axis = torch.linspace(-1, 1, side)
    flow_2HW = torch.stack([axis.expand(side, -1), axis[:, None].expand(-1, side)])
    inside_HW = torch.linalg.vector_norm(flow_2HW, dim=0) <= 1
    colours_HW3 = flow_to_colours(flow_2HW, max_magnitude=1.0)
    return np.where(inside_HW.numpy()[..., None], colours_HW3, np.uint8(255))
