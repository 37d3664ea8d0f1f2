"""An input of which nothing else is known: strips over its elements, in the order of the byte array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perceiver_io.pictures.input_attention import InputAttention
from perceiver_io.pictures.panel_sheet import PanelSheet
from perceiver_io.pictures.seen import Seen
from perceiver_io.pictures.strips import draw_strips

__all__ = ["SeenElements"]


@dataclass(frozen=True, kw_only=True)
class SeenElements(Seen):
    """Elements by their indices, whatever they are."""

    def draw(self, sheet: PanelSheet, attention: InputAttention) -> None:
        """Draws a strip for each latent over the elements."""
        num_elements = int(np.prod(attention.grid))
        sheet.note(f"{num_elements:,} elements, from left to right")
        draw_strips(sheet, attention.mapped(np.ravel).looks, np.arange(num_elements + 1.0), (0, num_elements))
