"""Curves over time, one panel for each.

Shape legend: S samples, T times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require
from perceiver_io.pictures.panel_sheet import PanelSheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_curve", "draw_envelope", "show_ticks"]

_COLOR, _GAP = "#3b5b8c", 0.05
_MAX_COLUMNS = 1200
_MAX_MARKED = 60


def draw_envelope(
    sheet: PanelSheet,
    samples_S: NDArray[np.float64],
    rate: float,
    *,
    label: str,
    height: float,
    time: str | None,
) -> None:
    """Draws a waveform; of many samples, their range in each column of the picture.

    Args:
        sheet: Where to draw.
        samples_S: At least one sample.
        rate: Samples a second.
        label: What stands on the left.
        height: Of the panel.
        time: What the numbers along the time are, which are written below; None for none.
    """
    length = len(samples_S)
    axes = sheet.axes(sheet.width, height, label=label, left=sheet.left)
    # Each sample lasts until the next: the curve ends where the last element does.
    starts = np.linspace(0, length, min(length, _MAX_COLUMNS) + 1).astype(np.int64)[:-1]
    times = (starts + 0.5) / rate
    lowest, highest = (edge.reduceat(samples_S, starts) for edge in (np.minimum, np.maximum))
    if length > _MAX_COLUMNS:
        axes.fill_between(times, lowest, highest, color=_COLOR, linewidth=0.4)
    else:
        axes.plot(times, samples_S, color=_COLOR, linewidth=0.7, marker="." if length <= _MAX_MARKED else "")
    limit = 1.05 * float(np.abs(samples_S).max()) or 1.0
    axes.set_ylim(-limit, limit)
    axes.set_xlim(0, length / rate)
    _finish(sheet, axes, height, label=label, note="", time=time)


def draw_curve(
    sheet: PanelSheet,
    times_T: NDArray[np.float64],
    values_T: NDArray[np.float64],
    limits: tuple[float, float],
    *,
    label: str,
    height: float,
    time: str | None,
) -> None:
    """Draws what was measured, with gaps where nothing was.

    Args:
        sheet: Where to draw.
        times_T: In ascending order.
        values_T: NaN where nothing was measured.
        limits: Of the time.
        label: What stands on the left.
        height: Of the panel.
        time: What the numbers along the time are, which are written below; None for none.
    """
    axes = sheet.axes(sheet.width, height, label=label, left=sheet.left)
    is_measured_T = np.isfinite(values_T)
    axes.plot(times_T, np.where(is_measured_T, values_T, np.nan), color=_COLOR, linewidth=0.9)
    # Between two gaps a line has no length.
    is_alone_T = is_measured_T & ~np.append(False, is_measured_T[:-1]) & ~np.append(is_measured_T[1:], False)
    marked_T = is_measured_T if len(times_T) <= _MAX_MARKED else is_alone_T
    axes.plot(times_T[marked_T], values_T[marked_T], ".", color=_COLOR, markersize=3)
    note = "never measured"
    if is_measured_T.any():
        low, high = float(values_T[is_measured_T].min()), float(values_T[is_measured_T].max())
        margin = 0.08 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
        note = f"{low:.3g} to {high:.3g}" if high > low else f"{low:.3g}"
    axes.set_xlim(limits)
    _finish(sheet, axes, height, label=label, note=note, time=time)


def show_ticks(axes: Axes, which: str, count: int) -> None:
    """Writes round numbers along an axis of a panel.

    Args:
        axes: The panel.
        which: "x" or "y".
        count: How many numbers at most.
    """
    locator = require("matplotlib.ticker", extra="train").MaxNLocator(count)
    getattr(axes, f"{which}axis").set_major_locator(locator)


def _finish(sheet: PanelSheet, axes: Axes, height: float, *, label: str, note: str, time: str | None) -> None:
    sheet.row(height, label=label, note=note)
    sheet.skip(height)
    if time is None:
        sheet.skip(0.05)
    else:
        show_ticks(axes, "x", 10)
        sheet.unit(time)
