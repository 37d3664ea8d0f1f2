"""Pictures of flow fields beside the two frames that they were estimated from.

Shape legend: N pairs, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.media.images import write_image
from perceiver_io.pictures.sheet import Sheet, scaled
from perceiver_io.tasks.optical_flow.checks import check_flow
from perceiver_io.tasks.optical_flow.colour_wheel import flow_to_colours

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["draw_flows", "flow_picture"]

_GAP, _KEY = 12, 96
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
    check_flow(flow)
    shape = (*flow.shape[1:], 3)
    if first.shape != shape or second.shape != shape:
        raise ValueError(f"The frames of this flow must be {shape}, got {first.shape} and {second.shape}.")
    if max_magnitude is None:
        known = flow if valid is None else flow[:, valid]
        max_magnitude = torch.linalg.vector_norm(known, dim=0).max().item() if known.numel() else 0.0
    colours = flow_to_colours(flow, valid, max_magnitude=max_magnitude or None)
    sheet = Sheet()
    sheet.row(
        [*(_panel(pixels) for pixels in (first, second, colours)), scaled(_key(_KEY), (_KEY, _KEY))],
        captions=["first frame", "second frame", "flow", f"{max_magnitude:.3g} pixels"],
        gap=_GAP,
    )
    return sheet.picture()


def draw_flows(rows: Sequence[Mapping[str, Tensor]], flows_N2HW: Tensor, path: Path) -> None:
    """Draws pairs with their true and their estimated flow, all on one scale of colours.

    Args:
        rows: `first` and `second` (F, H, W) uint8, `flow` (2, H, W) and `valid` (H, W); what is not known is black.
        flows_N2HW: What a model gives.
        path: The PNG to write.
    """
    known = [torch.linalg.vector_norm(row["flow"], dim=0)[row["valid"]] for row in rows]
    longest = max((one.max().item() for one in known if len(one)), default=0.0)
    sheet = Sheet()
    for place, (row, flow_2HW) in enumerate(zip(rows, flows_N2HW, strict=True)):
        frames = [row[name].expand(3, -1, -1).permute(1, 2, 0).numpy() for name in ("first", "second")]
        true = flow_to_colours(row["flow"], row["valid"], max_magnitude=longest or None)
        found = flow_to_colours(flow_2HW, max_magnitude=longest or None)
        captions = ["first frame", "second frame", "true flow", "estimated"] if place == 0 else []
        sheet.row([_panel(pixels) for pixels in (*frames, true, found)], captions=captions, gap=_GAP)
    sheet.row(
        [scaled(_key(_KEY), (_KEY, _KEY))], captions=[f"{longest:.3g} pixels; black: not known"], gap=_GAP
    )
    write_image(path, sheet.picture())


def _panel(pixels: NDArray[np.uint8]) -> Image:
    """Brings an image to a size at which one sees it; whole pixels where it is enlarged."""
    height, width = pixels.shape[:2]
    shortest, longest = _PANEL_SIDES
    longer = max(height, width)
    if longer > longest:
        return scaled(
            pixels, (max(1, round(width * longest / longer)), max(1, round(height * longest / longer)))
        )
    factor = max(1, shortest // longer)
    return scaled(pixels, (width * factor, height * factor))


def _key(side: int) -> NDArray[np.uint8]:
    """Draws the colours of all directions, out to the largest magnitude; white around them."""
    axis = torch.linspace(-1, 1, side)
    flow_2HW = torch.stack([axis.expand(side, -1), axis[:, None].expand(-1, side)])
    inside_HW = torch.linalg.vector_norm(flow_2HW, dim=0) <= 1
    colours_HW3 = flow_to_colours(flow_2HW, max_magnitude=1.0)
    return np.where(inside_HW.numpy()[..., None], colours_HW3, np.uint8(255))
