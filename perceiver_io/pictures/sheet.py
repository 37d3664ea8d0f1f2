"""Pictures that are drawn with Pillow, which comes with reading images anyway: captions and panels on white.

Shape legend: H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require
from perceiver_io.pictures.figure import INK, MUTED
from perceiver_io.printable import printable

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["WHITE", "Sheet", "scaled"]

WHITE = "#ffffff"

_MARGIN, _GAP, _LINE, _FONT_SIZE = 16, 6, 20, 13


class Sheet:
    """Lines of text and rows of panels, from top to bottom; the picture is as large as they need.

    Args:
        min_width: How wide the picture is at least, in pixels, without its margins.
    """

    def __init__(self, *, min_width: int = 1) -> None:
        self.width = min_width
        self._height = 0
        # Each with its left and top, counted from inside the margins.
        self._texts: list[tuple[int, int, str, str]] = []
        self._panels: list[tuple[int, int, Image]] = []
        self._font: Any = require("PIL.ImageFont", extra="image").load_default(size=_FONT_SIZE)

    def line(self, text: str, *, muted: bool = False) -> None:
        """Adds a line of text.

        Args:
            text: The text.
            muted: Whether it is a mere label.
        """
        self._texts.append((0, self._height, printable(text), MUTED if muted else INK))
        self._height += _LINE

    def row(self, panels: Sequence[Image], *, captions: Sequence[str] = (), gap: int = _GAP) -> None:
        """Adds panels side by side.

        Args:
            panels: The panels.
            captions: What is written above each; nothing if there are none.
            gap: Pixels between two.
        """
        left = 0
        top = self._height + (_LINE if captions else 0)
        for index, panel in enumerate(panels):
            width = panel.width
            if captions:
                caption = printable(captions[index])
                self._texts.append((left, self._height, caption, INK))
                width = max(width, round(self._font.getlength(caption)))
            self._panels.append((left, top, panel))
            self.width = max(self.width, left + width)
            left += width + gap
        self._height = top + max(panel.height for panel in panels) + _GAP

    def picture(self) -> Image:
        """Returns the picture."""
        size = (self.width + 2 * _MARGIN, self._height + 2 * _MARGIN)
        picture: Image = require("PIL.Image", extra="image").new("RGB", size, WHITE)
        pen = require("PIL.ImageDraw", extra="image").Draw(picture)
        for left, top, text, color in self._texts:
            pen.text((_MARGIN + left, _MARGIN + top), text, fill=color, font=self._font)
        for left, top, panel in self._panels:
            picture.paste(panel, (_MARGIN + left, _MARGIN + top))
        return picture


def scaled(pixels: NDArray[np.uint8], size: tuple[int, int]) -> Image:
    """Brings an image to a size. Enlarged pixels stay squares: a blur would hide what a model gave.

    Args:
        pixels: (H, W, 3) RGB values.
        size: Width and height.
    """
    pil = require("PIL.Image", extra="image")
    resample = pil.Resampling.NEAREST if pixels.shape[0] < size[1] else pil.Resampling.LANCZOS
    image: Image = pil.fromarray(np.ascontiguousarray(pixels)).resize(size, resample=resample)
    return image
