"""A sound: its waveform over time, and below it the attention over time.

Shape legend: F channels, S samples, M elements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiver_io.pictures.curves import draw_envelope
from perceiver_io.pictures.input_attention import InputAttention
from perceiver_io.pictures.panel_sheet import PanelSheet
from perceiver_io.pictures.seen import Seen, check_array, check_grid, check_real
from perceiver_io.pictures.strips import draw_strips

__all__ = ["SeenSound"]

_MAX_CHANNELS = 4


@dataclass(frozen=True, kw_only=True)
class SeenSound(Seen):
    """Samples of a sound that the model saw in patches; an element is a patch.

    Attributes:
        samples: (S,) or (F, S), padding included.
        sample_rate: Samples a second.
        num_real: How many of the samples are real, the first; None for all.

    Raises:
        ValueError: One of them is none.
    """

    samples: NDArray[np.floating]
    sample_rate: float
    num_real: int | None = None

    def __post_init__(self) -> None:
        check_array(self.samples, what="samples", shapes="(S,) or (F, S)", num_axes=(1, 2))
        check_real(self.num_real, self.samples.shape[-1], "samples")
        if not 0 < self.sample_rate < math.inf:
            raise ValueError(f"sample_rate is {self.sample_rate}, expected samples a second, above zero.")

    @property
    def is_empty(self) -> bool:
        """Whether none of the samples is real."""
        return self.num_real == 0 or self.samples.size == 0

    def draw(self, sheet: PanelSheet, attention: InputAttention) -> None:
        """Draws the waveform of each channel, then the attention over time."""
        samples_FS = np.atleast_2d(self.samples).astype(np.float64)
        num_samples = samples_FS.shape[1]
        check_grid(attention, "samples", limits=(num_samples,))
        num_real = num_samples if self.num_real is None else self.num_real
        shown_FS = samples_FS[:_MAX_CHANNELS, :num_real]
        for index, channel_S in enumerate(shown_FS):
            label = "waveform" if len(samples_FS) == 1 else f"channel {index + 1} of {len(samples_FS)}"
            draw_envelope(
                sheet,
                channel_S,
                self.sample_rate,
                label=label,
                height=0.8 if len(shown_FS) == 1 else 0.45,
                time="seconds" if index == len(shown_FS) - 1 else None,
            )
        samples_per_element = num_samples / attention.grid[0]
        num_elements = math.ceil(num_real / samples_per_element)
        edges = np.arange(num_elements + 1) * samples_per_element / self.sample_rate
        draw_strips(sheet, attention.looks, edges, (0, num_real / self.sample_rate))
