"""Panels one below the other on a sheet of fixed width, which is as high as they need; lengths are in inches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perceiver_io.pictures.figure import INK, MUTED, RULE, new_figure
from perceiver_io.pictures.glyphs import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

__all__ = ["PanelSheet"]

_WIDTH, _MARGIN = 10.4, 0.25
_MAX_HEIGHT = 400.0  # a little less than what matplotlib can draw


class PanelSheet:
    """A sheet that is filled from the top. Rows have a label on the left and a note on the right of their panels.

    Attributes:
        left: Where the panels of a row begin.
        width: How wide they are together.
        margin: Where headings begin.
        whole_width: From there to where notes end.
        heading_height: How high a heading is.

    Args:
        title: Heading of the sheet.
    """

    left, width = 1.55, 7.95
    margin, whole_width = _MARGIN, _WIDTH - 2 * _MARGIN
    heading_height = 0.25

    def __init__(self, title: str | None = None) -> None:
        self._figure = new_figure(_WIDTH, 1)
        self._top = _MARGIN
        self._name = ""
        self._axes: list[tuple[Axes, tuple[float, float, float, float]]] = []
        self._texts: list[tuple[Text, float]] = []
        if title:
            title = drawable(title)
            self.text(
                title, size=min(12, 110 * (_WIDTH - 2 * _MARGIN) / len(title)), weight="bold", below=0.08
            )
            self.skip(0.35)

    def skip(self, height: float) -> None:
        """Moves on downwards.

        Args:
            height: How far.

        Raises:
            ValueError: The sheet gets too high for a picture.
        """
        self._top += height
        if self._top > _MAX_HEIGHT:
            raise ValueError(
                f"The picture is higher than the {_MAX_HEIGHT:.0f} inches that can be drawn: choose fewer latents."
            )

    def group(self, name: str, heading: str) -> None:
        """Begins the panels of an input.

        Args:
            name: The input, with which the labels of its axes begin.
            heading: What is written above its panels.
        """
        self._name = name
        self.text(heading, size=10.5, weight="bold", below=0.1)
        self.skip(0.28)

    def heading(self, text: str, *, left: float = _MARGIN) -> None:
        """Writes a bold line, and moves below it.

        Args:
            text: The line.
            left: Where it begins.
        """
        self.text(text, left=left, size=8.5, weight="bold", below=0.1)
        self.skip(self.heading_height)

    def note(self, text: str) -> None:
        """Writes a small line, and moves below it.

        Args:
            text: The line.
        """
        self.text(text, size=7, color=MUTED, below=0.07)
        self.skip(0.2)

    def row(self, height: float, *, label: str = "", note: str = "") -> None:
        """Writes what stands beside the panels of a row.

        Args:
            height: Of the row.
            label: What stands on its left.
            note: What stands on its right.
        """
        self.text(label, left=self.left - 0.1, size=7.5, horizontalalignment="right", below=height / 2)
        self.text(note, left=self.left + self.width + 0.07, size=6.5, color=MUTED, below=height / 2)

    def unit(self, text: str) -> None:
        """Writes what the numbers below the panels of a row are, and moves below them.

        Args:
            text: The unit.
        """
        # The last number may reach beyond the panel.
        self.text(text, left=self.left + self.width + 0.2, size=6.5, color=MUTED, below=0.09)
        self.skip(0.25)

    def text(self, text: str, *, left: float = _MARGIN, below: float = 0.0, **style: Any) -> None:
        """Writes a text on one line.

        Args:
            text: The text; what the font cannot draw is replaced.
            left: Where it begins.
            below: How far below the current place its middle is.
            **style: Properties of matplotlib's texts.
        """
        style = {"color": INK, "verticalalignment": "center", "parse_math": False, **style}
        written = self._figure.text(left / _WIDTH, 0, drawable(text), **style)
        self._texts.append((written, self._top + below))

    def axes(
        self, width: float, height: float, *, label: str, left: float, below: float = 0.0, **settings: Any
    ) -> Axes:
        """Places a panel without ticks.

        Args:
            width: Its width.
            height: Its height.
            label: What `get_label()` of the axes returns, after the name of the input.
            left: Where it begins.
            below: How far below the current place its top is.
            **settings: Of `matplotlib.figure.Figure.add_axes`.
        """
        axes: Axes = self._figure.add_axes((0, 0, 1, 1), label=f"{self._name}: {label}", **settings)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.tick_params(labelsize=6.5, length=2, width=0.5, pad=1.5, color=MUTED, labelcolor=MUTED)
        for spine in axes.spines.values():
            spine.set(color=RULE, linewidth=0.6)
        self._axes.append((axes, (left, self._top + below, width, height)))
        return axes

    def figure(self) -> Figure:
        """Returns the figure, as high as what is on it."""
        total = self._top + _MARGIN
        self._figure.set_size_inches(_WIDTH, total)
        for axes, (left, top, width, height) in self._axes:
            axes.set_position((left / _WIDTH, 1 - (top + height) / total, width / _WIDTH, height / total))
        for text, top in self._texts:
            text.set_y(1 - top / total)
        return self._figure
