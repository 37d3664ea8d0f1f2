"""A page of letters of one width: which letter is drawn where.

Shape legend: L lines, K columns of letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perceiver_io.pictures.figure import DPI
from perceiver_io.pictures.glyphs import BOX, escaped, has_glyph
from perceiver_io.pictures.panel_sheet import PanelSheet

__all__ = ["FALLBACK_FONT", "FONT", "LETTER_SIZE", "LETTER_WIDTH", "TextPage"]

FONT, FALLBACK_FONT = "DejaVu Sans Mono", "DejaVu Sans"
# A letter is as wide as a whole number of pixels: else hinting would move letters away from their places.
LETTER_WIDTH = 7 / DPI
LETTER_SIZE = 72 * LETTER_WIDTH / (1233 / 2048)  # the font's advance, by the size of its letters
_MAX_COLUMNS = int(PanelSheet.width / LETTER_WIDTH)
_MAX_LINES = 6


class TextPage:
    """Lays pieces out in lines of letters of one width.

    Attributes:
        words: Rows, columns and texts of what is drawn together.
        odd_glyphs: Rows, columns and characters that would not keep to their places in a word.
        places: For each piece that has room, the rows and columns of its letters.
        num_lines: How many lines there are.
        num_columns: Letters in the longest of them.
        has_boxes: Whether boxes stand for some characters.

    Args:
        pieces: The pieces, none of them empty.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        rows: list[list[str]] = [[]]
        self.odd_glyphs: list[tuple[int, int, str]] = []
        self.places: list[list[tuple[int, int]]] = []
        self.has_boxes = False
        for piece in pieces:
            letters = _letters(piece)
            if rows[-1] and len(rows[-1]) + len(letters) > _MAX_COLUMNS:
                rows.append([])
            if len(rows) > _MAX_LINES:
                break
            place: list[tuple[int, int]] = []
            for letter in letters:
                if len(rows[-1]) == _MAX_COLUMNS:  # a piece that is longer than a line
                    if len(rows) == _MAX_LINES:
                        break
                    rows.append([])
                row, column = len(rows) - 1, len(rows[-1])
                place.append((row, column))
                self.has_boxes |= letter == BOX
                is_plain = has_glyph(letter, FONT) and not _is_odd(letter)
                rows[-1].append(letter if is_plain else " ")
                if not is_plain:
                    # A mark is drawn on a circle, so that it keeps to its own place.
                    glyph = f"◌{letter}" if unicodedata.category(letter)[0] == "M" else letter
                    self.odd_glyphs.append((row, column, glyph))
            self.places.append(place)
            if "\n" in piece:
                rows.append([])
        rows = [row for row in rows[:_MAX_LINES] if row]
        self.words = [
            (row, found.start(), found.group())
            for row, letters in enumerate(rows)
            for found in re.finditer(r"\S+", "".join(letters))
        ]
        self.num_lines = len(rows)
        self.num_columns = max(map(len, rows))

    def shaded(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns (L, K), masked where no letter is.

        Args:
            weights: Of the pieces that have room.
        """
        blank_LK = np.zeros((self.num_lines, self.num_columns), np.float32)
        page_LK = np.ma.masked_array(blank_LK, mask=True)
        for weight, place in zip(weights, self.places, strict=True):
            for row, column in place:
                page_LK[row, column] = weight
        return page_LK


def _letters(piece: str) -> str:
    """What is drawn of a piece: letters that have a glyph, and a place each."""
    letters = "".join("↵" if character == "\n" else escaped(character) for character in piece)
    return "".join(
        letter if has_glyph(letter, FONT) or has_glyph(letter, FALLBACK_FONT) else BOX for letter in letters
    )


def _is_odd(letter: str) -> bool:
    """Whether a letter moves in a line: a mark onto what is before it, one that is read from the right before it."""
    return unicodedata.category(letter)[0] == "M" or unicodedata.bidirectional(letter) in ("R", "AL", "AN")
