"""A text: its characters over several lines, shaded by attention."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from perceiver_io.pictures.attention_colors import colormap_on_white, percent
from perceiver_io.pictures.figure import INK
from perceiver_io.pictures.glyphs import BOX
from perceiver_io.pictures.input_attention import InputAttention
from perceiver_io.pictures.panel_sheet import PanelSheet
from perceiver_io.pictures.seen import Seen, check_rows
from perceiver_io.pictures.text_page import FALLBACK_FONT, FONT, LETTER_SIZE, LETTER_WIDTH, TextPage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SeenText", "byte_pieces"]

_LINE, _BASELINE = 0.165, 0.73

# The special tokens of the published tokenizer, in the order of their ids; those of bytes come after them.
_SPECIAL_TOKENS = ("[PAD]", "[BOS]", "[EOS]", "[MASK]", "[CLS]", "[SEP]")


@dataclass(frozen=True, kw_only=True)
class SeenText(Seen):
    """Pieces of a text; an element is a piece.

    Attributes:
        pieces: What each element stands for. An empty one belongs to the piece before it, as the later bytes of a
            character do. There may be more elements, which are padding.

    Raises:
        ValueError: They are not texts.
    """

    pieces: Sequence[str]

    def __post_init__(self) -> None:
        if isinstance(self.pieces, str) or not all(isinstance(piece, str) for piece in self.pieces):
            raise ValueError("pieces must be a list of texts, one for each element.")

    @property
    def is_empty(self) -> bool:
        """Whether there are no pieces."""
        return not len(self.pieces)

    def draw(self, sheet: PanelSheet, attention: InputAttention) -> None:
        """Draws the text for each latent, shaded by its attention."""
        check_rows(attention, len(self.pieces), "pieces")
        starts = [index for index, piece in enumerate(self.pieces) if piece or not index]
        page = TextPage([self.pieces[start] or BOX for start in starts])
        num_drawn = len(page.places)
        if num_drawn < len(starts):
            num_characters = sum(map(len, self.pieces))
            num_shown = sum(len(self.pieces[start]) for start in starts[:num_drawn])
            sheet.note(f"the first {num_shown:,} of {num_characters:,} characters; the rest is not drawn")
        if page.has_boxes:
            sheet.note(f"{BOX} is a character that the font lacks")
        height = _LINE * page.num_lines
        for look in attention.looks:
            sheet.heading(look.name)
            for latent in look.latents:
                weights = np.add.reduceat(latent.weights[: len(self.pieces)], starts)
                highest = float(weights.max())
                axes = sheet.axes(
                    page.num_columns * LETTER_WIDTH,
                    height,
                    label=f"{look.name}: {latent.label}",
                    left=sheet.left,
                )
                axes.imshow(
                    page.shaded(weights[:num_drawn]),
                    cmap=colormap_on_white(),
                    vmin=0,
                    vmax=highest or 1.0,
                    aspect="auto",
                    interpolation="nearest",
                    extent=(0, page.num_columns, page.num_lines, 0),
                )
                axes.set_axis_off()
                _write(axes, page)
                sheet.row(height, label=latent.label, note=f"max {percent(highest)}")
                if num_drawn < len(starts):
                    sheet.row(height + 0.26, note=f"rest {percent(weights[num_drawn:].sum())}")
                sheet.skip(height + 0.08)
            sheet.skip(0.05)


def byte_pieces(ids: Sequence[int], *, special_tokens: Sequence[str] = _SPECIAL_TOKENS) -> list[str]:
    r"""Returns what each id of a text stands for, whose bytes are the ids after those of special tokens.

    Args:
        ids: Ids of one text, as transformers' PerceiverTokenizer gives them.
        special_tokens: What the first ids are.

    Returns:
        A piece for each id, which is a special token, the character of which it is the first byte, nothing for its
        other bytes, and an escape such as ``\xff`` for a byte that belongs to no character. Ids of neither are in
        brackets.
    """
    pieces: list[str] = []
    offset = len(special_tokens)
    while len(pieces) < len(ids):
        start = len(pieces)
        index = ids[start]
        if 0 <= index < offset:
            pieces.append(special_tokens[index])
        elif not 0 <= index - offset < 256:
            pieces.append(f"[{index}]")
        else:
            run = itertools.takewhile(lambda one: 0 <= one - offset < 256, ids[start : start + 4])
            pieces += _first_character(bytes(one - offset for one in run))
    return pieces


def _first_character(run: bytes) -> list[str]:
    """The pieces of the bytes of the first character, or of the first byte if it begins none."""
    for length in range(1, len(run) + 1):
        try:
            return [run[:length].decode()] + [""] * (length - 1)
        except UnicodeDecodeError:
            continue
    return [f"\\x{run[0]:02x}"]


def _write(axes: Axes, page: TextPage) -> None:
    style: dict[str, Any] = {"size": LETTER_SIZE, "color": INK, "parse_math": False}
    for row, column, word in page.words:
        axes.text(column, row + _BASELINE, word, family=FONT, **style)
    for row, column, glyph in page.odd_glyphs:
        middle = column + 0.5
        axes.text(middle, row + _BASELINE, glyph, family=[FONT, FALLBACK_FONT], ha="center", **style)
