"""A time series: its variables over time, and below them the attention over time.

Shape legend: T times, V variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiver_io.pictures.curves import draw_curve
from perceiver_io.pictures.figure import shortened
from perceiver_io.pictures.input_attention import InputAttention
from perceiver_io.pictures.panel_sheet import PanelSheet
from perceiver_io.pictures.seen import Seen, check_array, check_rows
from perceiver_io.pictures.strips import draw_strips

__all__ = ["SeenSeries"]

_MAX_VARIABLES = 8


@dataclass(frozen=True, kw_only=True)
class SeenSeries(Seen):
    """What was measured at some times; an element is a time.

    Attributes:
        times: (T,) in any unit and order. There may be more elements, which are padding.
        values: (T, V), NaN where nothing was measured.
        names: (V,) what was measured.

    Raises:
        ValueError: They do not fit together, or a time is not finite.
    """

    times: NDArray[np.floating]
    values: NDArray[np.floating]
    names: Sequence[str]

    def __post_init__(self) -> None:
        check_array(self.times, what="times", shapes="(T,)", num_axes=(1,))
        expected = (len(self.times), len(self.names))
        if not isinstance(self.values, np.ndarray) or self.values.shape != expected:
            raise ValueError(
                f"values must be a numpy array (T, V) {expected}, for so many times and names, got "
                f"{getattr(self.values, 'shape', type(self.values).__name__)}."
            )

    @property
    def is_empty(self) -> bool:
        """Whether there are no times."""
        return not len(self.times)

    def draw(self, sheet: PanelSheet, attention: InputAttention) -> None:
        """Draws a curve for each variable, then the attention over time."""
        num_times = len(self.times)
        check_rows(attention, num_times, "times")
        order_T = np.argsort(self.times, kind="stable")
        times_T, values_TV = self.times[order_T].astype(np.float64), self.values[order_T].astype(np.float64)
        edges = _edges(times_T)
        limits = (float(edges[0]), float(edges[-1]))
        shown = range(min(values_TV.shape[1], _MAX_VARIABLES))
        for index in shown:
            draw_curve(
                sheet,
                times_T,
                values_TV[:, index],
                limits,
                label=shortened(str(self.names[index])),
                height=0.8 if len(shown) == 1 else 0.42,
                time="time" if index == shown[-1] else None,
            )
        if len(self.names) > len(shown):
            sheet.note(f"the first {len(shown)} of {len(self.names)} variables")
        draw_strips(sheet, attention.mapped(lambda weights_M: weights_M[order_T]).looks, edges, limits)


def _edges(times_T: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T + 1,) halfway between the times; the first and the last time last as long as their neighbours."""
    halfway = (times_T[1:] + times_T[:-1]) / 2
    if not len(halfway) or times_T[0] == times_T[-1]:
        return np.linspace(times_T[0] - 0.5, times_T[0] + 0.5, len(times_T) + 1)
    return np.concatenate([[2 * times_T[0] - halfway[0]], halfway, [2 * times_T[-1] - halfway[-1]]])
