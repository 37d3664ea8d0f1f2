"""A row of a table: a bar for the attention to each column.

Shape legend: V columns of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perceiver_io.pictures.figure import INK, shortened
from perceiver_io.pictures.input_attention import InputAttention
from perceiver_io.pictures.panel_sheet import PanelSheet
from perceiver_io.pictures.seen import Seen, check_rows
from perceiver_io.pictures.tiles import draw_tiles, tile_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SeenTable"]

_MAX_COLUMNS = 24
_NAMES_WIDTH, _LINE = 2.5, 0.16


@dataclass(frozen=True, kw_only=True)
class SeenTable(Seen):
    """The columns of one row of a table; an element is a column.

    Attributes:
        names: (V,) what the columns are called. There may be more elements, which are padding.
        values: (V,) what they hold, as text.

    Raises:
        ValueError: There are not as many names as values.
    """

    names: Sequence[str]
    values: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.values):
            raise ValueError(
                f"There are {len(self.names)} names of {len(self.values)} values: give one for each."
            )

    @property
    def is_empty(self) -> bool:
        """Whether there are no columns."""
        return not len(self.names)

    def draw(self, sheet: PanelSheet, attention: InputAttention) -> None:
        """Draws the names and values of the columns, and beside them bars for their attention."""
        num_columns = len(self.names)
        check_rows(attention, num_columns, "columns")
        shown_V = np.arange(num_columns)
        if num_columns > _MAX_COLUMNS:
            weights = [latent.weights[:num_columns] for look in attention.looks for latent in look.latents]
            shown_V = np.sort(np.argsort(-np.max(weights, axis=0), kind="stable")[:_MAX_COLUMNS])
            sheet.note(
                f"the {_MAX_COLUMNS} of {num_columns} columns that get the most attention of one of these latents"
            )
        height = _LINE * len(shown_V)

        def draw_tile(axes: Axes, weights_M: NDArray[np.float32]) -> float:
            highest = float(weights_M[:num_columns].max())
            axes.barh(np.arange(len(shown_V)), weights_M[shown_V], height=0.75, color="#e0603f")
            axes.set_xlim(0, 1.05 * highest or 1.0)
            axes.set_ylim(len(shown_V) - 0.5, -0.5)
            return highest

        left = sheet.margin + _NAMES_WIDTH + 0.1
        size = (tile_width(5, sheet.whole_width - _NAMES_WIDTH - 0.1), height)
        first_ones = draw_tiles(sheet, attention.looks, draw_tile, left=left, size=size, per_line=5)
        for axes in first_ones:
            axes.set_yticks(
                range(len(shown_V)), [self._label(index) for index in shown_V.tolist()], parse_math=False
            )
            axes.tick_params(axis="y", length=0, labelsize=7, labelcolor=INK)

    def _label(self, index: int) -> str:
        return f"{shortened(str(self.names[index]))} = {shortened(str(self.values[index]))}".rstrip()
