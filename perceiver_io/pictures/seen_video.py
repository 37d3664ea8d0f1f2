"""A video: the attention over some of its frames, and how much each of its times gets.

Shape legend: T frames, H frame height, W frame width; t, G, g the grid of the elements: times, rows, columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiver_io.pictures.attention_colors import highest_drawn, percent
from perceiver_io.pictures.figure import MUTED
from perceiver_io.pictures.input_attention import InputAttention
from perceiver_io.pictures.panel_sheet import PanelSheet
from perceiver_io.pictures.seen import Seen, check_grid, check_real
from perceiver_io.pictures.strips import draw_strips
from perceiver_io.pictures.tiles import draw_backdrop, draw_weights, tile_width

__all__ = ["SeenVideo"]

_MAX_FRAMES = 8
_MAX_FRAME_WIDTH, _MAX_FRAME_HEIGHT = 1.6, 0.7


@dataclass(frozen=True, kw_only=True)
class SeenVideo(Seen):
    """Frames of a video; elements have times, rows and columns.

    Attributes:
        frames: (T, H, W, 3) uint8, padding included.
        frame_rate: Frames a second; if None, frames are called by their number.
        num_real: How many of the frames are real, the first; None for all.

    Raises:
        ValueError: One of them is none.
    """

    frames: NDArray[np.uint8]
    frame_rate: float | None = None
    num_real: int | None = None

    def __post_init__(self) -> None:
        is_array = isinstance(self.frames, np.ndarray)
        shape = tuple(self.frames.shape) if is_array else ()
        if len(shape) != 4 or shape[3] != 3 or 0 in shape[1:] or self.frames.dtype != np.uint8:
            kind = self.frames.dtype if is_array else type(self.frames).__name__
            raise ValueError(f"frames must be a numpy array (T, H, W, 3) of uint8, got {kind} {shape}.")
        check_real(self.num_real, len(self.frames), "frames")
        if self.frame_rate is not None and not 0 < self.frame_rate < math.inf:
            raise ValueError(f"frame_rate is {self.frame_rate}, expected frames a second, above zero.")

    @property
    def is_empty(self) -> bool:
        """Whether none of the frames is real."""
        return self.num_real == 0 or not len(self.frames)

    def draw(self, sheet: PanelSheet, attention: InputAttention) -> None:
        """Draws some frames and the attention over them, then the attention over time."""
        num_frames, height, width = self.frames.shape[:3]
        check_grid(attention, "frames, rows, columns", limits=(num_frames, height, width))
        num_real = num_frames if self.num_real is None else self.num_real
        frames_per_element = num_frames / attention.grid[0]
        num_times = math.ceil(num_real / frames_per_element)
        shown = np.unique(np.linspace(0, num_times - 1, min(num_times, _MAX_FRAMES)).round().astype(int))
        pixels = [self.frames[int(time * frames_per_element)] for time in shown]
        frame_width = min(
            tile_width(len(shown), sheet.width), _MAX_FRAME_WIDTH, _MAX_FRAME_HEIGHT * width / height
        )
        frame_height = max(frame_width * height / width, 0.15)
        lefts = [sheet.left + index * (frame_width + 0.13) for index in range(len(shown))]

        sheet.skip(0.15)
        for left, time, frame in zip(lefts, shown, pixels, strict=True):
            axes = sheet.axes(frame_width, frame_height, label=f"frame {time}", left=left)
            axes.imshow(frame)
            frame_number = int(time * frames_per_element)
            caption = f"frame {frame_number}"
            if self.frame_rate is not None:
                caption = f"{frame_number / self.frame_rate:.2f} s"
            sheet.text(caption, left=left, size=6.5, color=MUTED, below=-0.08)
        note = "" if len(shown) == num_times else f"{len(shown)} of {num_times}"
        sheet.row(frame_height, label="frames", note=note)
        sheet.skip(frame_height + 0.1)
        for look in attention.looks:
            sheet.heading(f"{look.name}, over the frames")
            for latent in look.latents:
                weights_tGg = latent.weights[shown]
                highest = highest_drawn(weights_tGg)
                for left, time, frame, weights_Gg in zip(lefts, shown, pixels, weights_tGg, strict=True):
                    axes = sheet.axes(
                        frame_width,
                        frame_height,
                        label=f"{look.name}: {latent.label}: frame {time}",
                        left=left,
                    )
                    extent = (0, width, height, 0)
                    draw_backdrop(axes, frame, extent=extent)
                    draw_weights(axes, weights_Gg, highest=highest, extent=extent)
                sheet.row(frame_height, label=latent.label, note=f"max {percent(weights_tGg.max())}")
                sheet.skip(frame_height + 0.04)
            sheet.skip(0.1)
        over_time = attention.mapped(lambda weights_tGg: weights_tGg.sum(axis=(1, 2)))
        rate = self.frame_rate or 1.0
        edges = np.arange(num_times + 1) * frames_per_element / rate
        draw_strips(sheet, over_time.looks, edges, (0, num_real / rate), what="over time")
