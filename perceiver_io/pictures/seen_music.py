"""Events of music: a piano roll over the events, and below it the attention to them.

Shape legend: N notes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiver_io.pictures.curves import show_ticks
from perceiver_io.pictures.input_attention import InputAttention
from perceiver_io.pictures.panel_sheet import PanelSheet
from perceiver_io.pictures.piano_roll import Roll, draw_notes
from perceiver_io.pictures.seen import Seen, check_array, check_rows
from perceiver_io.pictures.strips import draw_strips

__all__ = ["SeenMusic"]

_HEIGHT = 1.3


@dataclass(frozen=True, kw_only=True)
class SeenMusic(Seen):
    """Events, an element each. Notes reach from the event that begins them to the one that ends them.

    Attributes:
        num_events: How many events there are. There may be more elements, which are padding.
        pitch: (N,) 0 to 127.
        first: (N,) index of the event that begins the note.
        last: (N,) index of the one that ends it.

    Raises:
        ValueError: They are no numbers, or do not fit together.
    """

    num_events: int
    pitch: NDArray[np.integer]
    first: NDArray[np.integer]
    last: NDArray[np.integer]

    def __post_init__(self) -> None:
        for name in ("pitch", "first", "last"):
            check_array(getattr(self, name), what=name, shapes="(N,)", num_axes=(1,))
            if len(getattr(self, name)) != len(self.pitch):
                raise ValueError(
                    f"There are {len(self.pitch)} notes, but {name} is of {len(getattr(self, name))}."
                )

    @property
    def is_empty(self) -> bool:
        """Whether there are no events."""
        return not self.num_events

    def draw(self, sheet: PanelSheet, attention: InputAttention) -> None:
        """Draws the notes, then the attention to the events."""
        check_rows(attention, self.num_events, "events")
        axes = sheet.axes(sheet.width, _HEIGHT, label="notes", left=sheet.left)
        notes = Roll(title="", pitch=self.pitch, start=self.first, end=self.last)
        draw_notes(axes, notes, until=float(self.num_events), width=sheet.width)
        show_ticks(axes, "x", 10)
        sheet.row(_HEIGHT, note=f"{len(self.pitch)} notes")
        sheet.skip(_HEIGHT)
        sheet.unit("event")
        draw_strips(sheet, attention.looks, np.arange(self.num_events + 1.0), (0, self.num_events))
