"""Which characters a font can draw, and what stands for the others: no picture fails or warns because of a text."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from perceiver_io.extras import require

__all__ = ["BOX", "drawable", "escaped", "has_glyph"]

BOX = "□"


def drawable(text: str) -> str:
    """Returns a text on one line, with escapes for control characters and a box for each that the font lacks.

    Args:
        text: Any text.
    """
    return "".join(map(_drawn, " ".join(text.split())))


def escaped(character: str) -> str:
    r"""Returns an escape, such as ``\x07``, for a character that draws nothing or steers what is around it.

    Args:
        character: One character. One that is visible, or a space, comes back as it is.
    """
    if unicodedata.category(character)[0] == "C" or unicodedata.category(character) in ("Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character


def has_glyph(character: str, family: str | None = None) -> bool:
    """Says whether a font has a character.

    Args:
        character: One character.
        family: The font's family; that of the texts of figures if None.
    """
    return ord(character) in _characters(family)


def _drawn(character: str) -> str:
    character = escaped(character)
    return character if len(character) > 1 or has_glyph(character) else BOX


@lru_cache
def _characters(family: str | None) -> frozenset[int]:
    fonts = require("matplotlib.font_manager", extra="train")
    file = fonts.findfont(fonts.FontProperties(family=family))
    return frozenset(fonts.get_font(file).get_charmap())
