"""Pictures of music: a bar for each note, time to the right and pitch upwards.

Shape legend: N notes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require
from perceiver_io.pictures.figure import DPI, INK, MUTED, RULE, new_figure, shortened, write_figure
from perceiver_io.pictures.glyphs import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Roll", "draw_notes", "draw_piano_rolls", "piano_roll_figure"]

_GIVEN, _NEW = "#8a94a6", "#2f6db5"
_BLACK_KEYS = (1, 3, 6, 8, 10)
_WIDTH, _ROW_HEIGHT, _MARGIN = 10.4, 2.1, 0.45
_LEAST_PITCHES, _MOST_SECONDS = 24, 60.0


@dataclass(frozen=True, kw_only=True)
class Roll:
    """One piece of music in a picture.

    Attributes:
        title: What is written above it.
        pitch: (N,) 0 to 127.
        start: (N,) seconds.
        end: (N,) seconds.
        given: (N,) bool, True for notes that a model was given, which are grey; none if None.
    """

    title: str
    pitch: NDArray[Any]
    start: NDArray[Any]
    end: NDArray[Any]
    given: NDArray[np.bool_] | None = None


def draw_piano_rolls(rolls: Sequence[Roll], path: str | os.PathLike[str]) -> None:
    """Writes the picture that `piano_roll_figure` makes; its arguments and errors are the same.

    Args:
        rolls: The pieces.
        path: File to write, whole or not at all; its suffix says the format.
    """
    write_figure(piano_roll_figure(rolls), path)


def piano_roll_figure(rolls: Sequence[Roll]) -> Figure:
    """Makes a figure of pieces, one below the other, in one scale of time: the first minute, if they are longer.

    Args:
        rolls: The pieces; one without notes is an empty row.

    Raises:
        ValueError: There are none.
        ImportError: matplotlib is not installed.
    """
    if not rolls:
        raise ValueError("There is no music to draw, expected one piece or more.")
    height = _MARGIN + _ROW_HEIGHT * len(rolls)
    figure = new_figure(_WIDTH, height)
    longest = max([1.0, *(float(roll.end.max()) for roll in rolls if len(roll.end))])
    seconds = min(longest, _MOST_SECONDS)
    for place, roll in enumerate(rolls):
        top = _ROW_HEIGHT * place + 0.32
        row_height = _ROW_HEIGHT - 0.42
        axes = figure.add_axes(
            (0.55 / _WIDTH, 1 - (top + row_height) / height, (_WIDTH - 0.8) / _WIDTH, row_height / height)
        )
        _draw_roll(axes, roll, seconds, is_last=place == len(rolls) - 1)
    return figure


def draw_notes(axes: Axes, roll: Roll, *, until: float, width: float) -> None:
    """Draws the notes of a piece into a panel, over the black keys that they are among.

    Args:
        axes: The panel.
        roll: The piece.
        until: Where the panel ends, in the unit of the notes' starts.
        width: Of the panel, in inches.
    """
    shown = roll.start < until
    pitch, start, end = roll.pitch[shown].astype(int), roll.start[shown], np.minimum(roll.end[shown], until)
    given = np.zeros(len(pitch), dtype=bool) if roll.given is None else roll.given[shown]
    middle = (pitch.min() + pitch.max()) / 2 if len(pitch) else 60
    half = max((np.ptp(pitch) if len(pitch) else 0) / 2 + 2, _LEAST_PITCHES / 2)
    low, high = int(np.floor(middle - half)), int(np.ceil(middle + half))
    for key in range(low, high + 1):
        if key % 12 in _BLACK_KEYS:
            axes.axhspan(key - 0.5, key + 0.5, color="#f1f3f6", linewidth=0)
        if key % 12 == 0:
            axes.axhline(key - 0.5, color=RULE, linewidth=0.6)
    # A gap of a pixel between notes that follow each other.
    pixel = until / (width * DPI)
    collection = require("matplotlib.collections", extra="train").PolyCollection(
        [
            [(left, key - 0.42), (left, key + 0.42), (right, key + 0.42), (right, key - 0.42)]
            for key, left, right in zip(pitch, start, np.maximum(end - pixel, start + pixel), strict=True)
        ],
        facecolors=[_GIVEN if is_given else _NEW for is_given in given],
        linewidths=0,
    )
    axes.add_collection(collection)
    axes.set_xlim(0, until)
    axes.set_ylim(low - 0.5, high + 0.5)
    octaves = [key for key in range(low, high + 1) if key % 12 == 0]
    axes.set_yticks(octaves, [f"C{key // 12 - 1}" for key in octaves])


def _draw_roll(axes: Axes, roll: Roll, seconds: float, *, is_last: bool) -> None:
    draw_notes(axes, roll, until=seconds, width=_WIDTH - 0.8)
    axes.tick_params(labelsize=7, color=RULE, labelcolor=MUTED, labelbottom=is_last)
    for spine in axes.spines.values():
        spine.set(color=RULE, linewidth=0.6)
    if is_last:
        axes.set_xlabel("seconds", fontsize=7, color=MUTED, labelpad=1)
    title = shortened(roll.title) if len(roll.title) > 70 else drawable(roll.title)
    axes.set_title(title, loc="left", fontsize=8.5, color=INK, parse_math=False)
