"""An image beside other inputs: the attention over it.

Shape legend: G grid height, g grid width, H image height, W image width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perceiver_io.pictures.attention import image_pixels
from perceiver_io.pictures.attention_colors import highest_drawn
from perceiver_io.pictures.input_attention import InputAttention
from perceiver_io.pictures.panel_sheet import PanelSheet
from perceiver_io.pictures.seen import Seen, check_grid
from perceiver_io.pictures.tiles import draw_backdrop, draw_seen, draw_tiles, draw_weights, tile_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from perceiver_io.pictures.attention import ImageLike

__all__ = ["SeenImage"]

_SEEN_GAP = 0.3


@dataclass(frozen=True, kw_only=True)
class SeenImage(Seen):
    """An image as the model saw it; elements have rows and columns.

    Attributes:
        pixels: (H, W) or (H, W, 3) uint8, or a PIL image.

    Raises:
        ValueError: It is no image.
    """

    pixels: ImageLike

    def __post_init__(self) -> None:
        image_pixels(self.pixels)

    def draw(self, sheet: PanelSheet, attention: InputAttention) -> None:
        """Draws the image, then the attention over it."""
        pixels = image_pixels(self.pixels)
        height, width = pixels.shape[:2]
        check_grid(attention, "rows, columns", limits=(height, width))
        extent = (0, width, height, 0)
        tile = tile_width(6, sheet.whole_width - _SEEN_GAP)
        size = (tile, tile * min(max(height / width, 0.3), 1.6))

        def draw_tile(axes: Axes, weights_Gg: NDArray[np.float32]) -> float:
            draw_backdrop(axes, pixels, extent=extent)
            draw_weights(axes, weights_Gg, highest=highest_drawn(weights_Gg), extent=extent)
            return float(weights_Gg.max())

        seen = draw_seen(sheet, size)
        seen.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        left = sheet.margin + tile + 0.13 + _SEEN_GAP
        draw_tiles(sheet, attention.looks, draw_tile, left=left, size=size, per_line=5)
