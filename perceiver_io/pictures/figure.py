"""What all pictures share: figures without a display, files that appear whole, colours, short names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from perceiver_io.extras import require
from perceiver_io.files import writing
from perceiver_io.pictures.glyphs import drawable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DPI", "INK", "MUTED", "RULE", "new_figure", "shortened", "write_figure"]

DPI = 110
INK, MUTED, RULE = "#1f2430", "#6b7280", "#d5d9e0"

_MAX_NAME_LENGTH = 24


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty white figure, which is not pyplot's.

    Args:
        width: Width in inches.
        height: Height in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure: Figure = require("matplotlib.figure", extra="train").Figure(
        figsize=(width, height), dpi=DPI, facecolor="white"
    )
    return figure


def write_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure, whole or not at all.

    Args:
        figure: The figure.
        path: File to write; its suffix says the format, without one it is PNG.

    Raises:
        ValueError: matplotlib does not know the format, or the path is something else than a file.
        OSError: The file cannot be written. What was there before is still there.
    """
    path = Path(path)
    with writing(path) as partial:
        figure.savefig(partial, format=path.suffix[1:].lower() or "png")


def shortened(name: str) -> str:
    """Returns a name as the font can draw it, on one line, cut to 24 characters."""
    name = drawable(str(name))
    return name if len(name) <= _MAX_NAME_LENGTH else name[: _MAX_NAME_LENGTH - 1] + "…"
