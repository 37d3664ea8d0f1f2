"""A sound as a picture of its frequencies over time: the attention over it.

Shape legend: T time frames, F frequency bands; t, f the grid of the elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perceiver_io.pictures.attention_colors import highest_drawn
from perceiver_io.pictures.curves import show_ticks
from perceiver_io.pictures.figure import shortened
from perceiver_io.pictures.input_attention import InputAttention
from perceiver_io.pictures.panel_sheet import PanelSheet
from perceiver_io.pictures.seen import Seen, check_array, check_grid, check_real
from perceiver_io.pictures.tiles import draw_backdrop, draw_tiles, draw_weights, tile_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SeenSpectrogram"]

_HEIGHT = 1.0
_MAX_BAND_TICKS = 5


@dataclass(frozen=True, kw_only=True)
class SeenSpectrogram(Seen):
    """A log-mel picture that the model saw in patches, or in whole frames; low bands come first.

    Attributes:
        values: (T, F), padding included.
        seconds_per_frame: From one frame to the next.
        bands: (F,) what the bands are called; their numbers if empty.
        num_real: How many of the frames are real, the first; None for all.

    Raises:
        ValueError: One of them is none, or they do not fit together.
    """

    values: NDArray[np.floating]
    seconds_per_frame: float
    bands: Sequence[str] = ()
    num_real: int | None = None

    def __post_init__(self) -> None:
        check_array(self.values, what="values", shapes="(T, F)", num_axes=(2,))
        num_frames, num_bands = self.values.shape
        check_real(self.num_real, num_frames, "frames")
        if not 0 < self.seconds_per_frame < math.inf:
            raise ValueError(f"seconds_per_frame is {self.seconds_per_frame}, expected seconds, above zero.")
        if len(self.bands) not in (0, num_bands):
            raise ValueError(
                f"There are {len(self.bands)} names of {num_bands} bands: give one for each, or none."
            )

    @property
    def is_empty(self) -> bool:
        """Whether none of the frames is real."""
        return self.num_real == 0 or self.values.size == 0

    def draw(self, sheet: PanelSheet, attention: InputAttention) -> None:
        """Draws the picture, then the attention over it."""
        num_frames, num_bands = self.values.shape
        if len(attention.grid) == 1:
            attention = attention.mapped(lambda weights_t: weights_t[:, None])
        check_grid(attention, "frames, bands", limits=(num_frames, num_bands))
        num_real = num_frames if self.num_real is None else self.num_real
        real_FT = self.values[:num_real].T.astype(np.float64)
        length = num_real * self.seconds_per_frame
        seen = sheet.axes(sheet.width, _HEIGHT, label="seen", left=sheet.left)
        seen.imshow(real_FT, cmap="gray", aspect="auto", origin="lower", extent=(0, length, 0, num_bands))
        show_ticks(seen, "x", 10)
        self._name_bands(seen)
        sheet.skip(_HEIGHT)
        sheet.unit("seconds")

        frames_per_element = num_frames / attention.grid[0]
        num_elements = math.ceil(num_real / frames_per_element)
        end = num_elements * frames_per_element * self.seconds_per_frame
        low, high = float(real_FT.min()), float(real_FT.max())
        pixels_FT = ((real_FT - low) * (255 / ((high - low) or 1.0))).astype(np.uint8)

        def draw_tile(axes: Axes, weights_tf: NDArray[np.float32]) -> float:
            real_tf = weights_tf[:num_elements]
            style = {"aspect": "auto", "origin": "lower"}
            draw_backdrop(axes, pixels_FT, extent=(0, length, 0, num_bands), **style)
            draw_weights(
                axes, real_tf.T, highest=highest_drawn(real_tf), extent=(0, end, 0, num_bands), **style
            )
            axes.set_xlim(0, length)
            return float(real_tf.max())

        size = (tile_width(3, sheet.whole_width), 0.8)
        draw_tiles(sheet, attention.looks, draw_tile, left=sheet.margin, size=size, per_line=3)

    def _name_bands(self, axes: Axes) -> None:
        if not len(self.bands):
            show_ticks(axes, "y", _MAX_BAND_TICKS)
            axes.set_ylabel("band", fontsize=7)
            return
        count = min(len(self.bands), _MAX_BAND_TICKS)
        shown = sorted({round(index) for index in np.linspace(0, len(self.bands) - 1, count)})
        names = [shortened(str(self.bands[index])) for index in shown]
        axes.set_yticks([index + 0.5 for index in shown], names, parse_math=False)
