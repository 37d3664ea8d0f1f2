"""An image that was read value by value: the attention over it.

Shape legend: T tokens, H height, W width, F image channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiver_io.pictures.input_attention import InputAttention
from perceiver_io.pictures.panel_sheet import PanelSheet
from perceiver_io.pictures.seen import Seen, check_array, check_grid
from perceiver_io.pictures.seen_image import SeenImage

__all__ = ["SeenPixelSequence"]


@dataclass(frozen=True, kw_only=True)
class SeenPixelSequence(Seen):
    """An image of which each value of each pixel was a token, after a start token.

    Attributes:
        pixels: (H, W) or (H, W, F) uint8.

    Raises:
        ValueError: It is no image.
    """

    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        check_array(self.pixels, what="pixels", shapes="(H, W) or (H, W, F)", num_axes=(2, 3))

    def draw(self, sheet: PanelSheet, attention: InputAttention) -> None:
        """Draws the image, then the attention over its pixels, that of their channels together."""
        check_grid(attention, "tokens", limits=(1 + self.pixels.size,))
        height, width = self.pixels.shape[:2]
        image = SeenImage(pixels=self.pixels)

        def on_grid(weights_T: NDArray[np.float32]) -> NDArray[np.float32]:
            whole = np.zeros(self.pixels.size, np.float32)
            whole[: len(weights_T) - 1] = weights_T[1:]
            summed: NDArray[np.float32] = whole.reshape(height, width, -1).sum(axis=2)
            return summed

        image.draw(sheet, attention.mapped(on_grid))
