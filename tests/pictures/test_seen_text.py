from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from transformers import PerceiverTokenizer

from perceiver_io.pictures.attention_view import AttentionView, view_figure
from perceiver_io.pictures.glyphs import drawable
from perceiver_io.pictures.seen_text import SeenText, byte_pieces
from tests.pictures.random_maps import make_maps


def draw(pieces: list[str], num_elements: int | None = None) -> tuple[Figure, Axes, np.ndarray]:
    """The figure, the panel of latent 1 and its weights."""
    num_elements = len(pieces) if num_elements is None else num_elements
    maps = make_maps({"x": (num_elements,), "other": (2,)}, num_real={"x": len(pieces)})
    figure = view_figure(AttentionView(maps=maps, seen={"x": SeenText(pieces=pieces)}), latents=[1])
    figure.savefig(io.BytesIO(), format="png", dpi=20)  # warnings are errors
    (axes,) = [axes for axes in figure.axes if str(axes.get_label()).startswith("x: Cross-attend: latent 1")]
    return figure, axes, maps[0].weights["x"][0].double().numpy().mean(axis=0)[1]


def page(axes: Axes) -> list[str]:
    """What is written, line by line, blanks where nothing is."""
    num_lines, num_columns = axes.get_images()[0].get_array().shape
    lines = [[" "] * num_columns for _ in range(num_lines)]
    for text in axes.texts:
        column, row = text.get_position()
        for offset, letter in enumerate(text.get_text().removeprefix("◌")):
            lines[int(row)][int(column) + offset] = letter
    return ["".join(line) for line in lines]


def test_characters_have_the_colours_of_their_attention() -> None:
    _, axes, expected = draw(list("a $b$ c"), 9)
    assert page(axes) == ["a $b$ c"]
    shade = axes.get_images()[0].get_array()
    assert_allclose(shade, [expected[:7]], rtol=1e-5)
    assert not np.ma.getmaskarray(shade).any()
    assert axes.get_images()[0].get_clim() == pytest.approx((0, expected.max()))


def test_the_bytes_of_a_character_are_one_glyph() -> None:
    text = "né ß😀!"
    ids = PerceiverTokenizer()(text)["input_ids"]
    pieces = byte_pieces(ids)
    assert pieces == ["[CLS]", "n", "é", "", " ", "ß", "", "😀", "", "", "", "!", "[SEP]"]
    _, axes, expected = draw(pieces)
    assert page(axes) == ["[CLS]" + text + "[SEP]"]
    e = expected
    glyphs = [e[1], e[2] + e[3], e[4], e[5] + e[6], e[7:11].sum(), e[11]]
    assert_allclose(axes.get_images()[0].get_array(), [[e[0]] * 5 + glyphs + [e[12]] * 5], rtol=1e-5)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff\xc3", ["\\xff", "\\xc3"]),
        ("é".encode()[1:] + b"a", ["\\xa9", "a"]),
        (b"\xf0\x9f\x98", ["\\xf0", "\\x9f", "\\x98"]),
        (b"\xc3\x28", ["\\xc3", "("]),
        ("日本".encode(), ["日", "", "", "本", "", ""]),
        (b"", []),
    ],
)
def test_pieces_of_bytes(data: bytes, expected: list[str]) -> None:
    assert byte_pieces([byte + 6 for byte in data]) == expected


def test_pieces_of_other_ids() -> None:
    assert byte_pieces([0, 1, 2, 3, 4, 5, 6 + 65]) == [
        "[PAD]",
        "[BOS]",
        "[EOS]",
        "[MASK]",
        "[CLS]",
        "[SEP]",
        "A",
    ]
    # A special token between the bytes of a character parts them.
    assert byte_pieces([6 + 0xC3, 3, 6 + 0xA9]) == ["\\xc3", "[MASK]", "\\xa9"]
    assert byte_pieces([262, -100, 6 + 65]) == ["[262]", "[-100]", "A"]
    assert byte_pieces([0, 1], special_tokens=["<pad>"]) == ["<pad>", "\x00"]


def test_what_the_font_lacks_is_a_box_and_what_steers_an_escape() -> None:
    figure, axes, _ = draw(["日", "\x07", "\t", "\ud800", "a", "\u200b"])
    assert page(axes) == ["□\\x07\\t\\ud800a\\u200b"]
    assert "□ is a character that the font lacks" in [text.get_text() for text in figure.texts]


ANY_TEXT = [
    "e\u0301",
    "עברית",
    "العربية",
    "👩\u200d👧",
    "$x_1^2$",
    "\\frac{",
    "%",
    "𝔘",
    "\u0301",
    " ",
    "\u2028",
]


@pytest.mark.parametrize("text", ANY_TEXT)
def test_any_text_can_be_drawn(text: str) -> None:
    _, axes, _ = draw(list(text))
    assert axes.get_images()[0].get_array().shape[1] >= len(text)
    assert len(drawable(text)) <= 8 * len(text)


def test_lines_are_broken() -> None:
    _, axes, expected = draw(["ab\n", *"cd", "\n", *"x" * 200, "y" * 100, "z" * 300])
    lines = page(axes)
    assert lines[0].rstrip() == "ab↵" and lines[1].rstrip() == "cd↵"
    assert lines[2] == "x" * len(lines[2]) and lines[3].rstrip() == "x" * (200 - len(lines[2]))
    assert lines[4].startswith("y" * 100) and lines[5] == "z" * len(lines[2])
    shade = axes.get_images()[0].get_array()
    assert shade[0, 3:].mask.all() and not shade[0, :3].mask.any()
    assert_allclose(shade[0, :3].data, expected[0], rtol=1e-5)


def test_a_long_text_is_cut() -> None:
    figure, axes, expected = draw(list("word " * 2_000))
    lines = page(axes)
    num_drawn = sum(map(len, lines))
    assert len(lines) == 6 and 500 < num_drawn < 1_000
    shown = [text.get_text() for text in figure.texts]
    assert f"the first {num_drawn:,} of 10,000 characters; the rest is not drawn" in shown
    assert f"rest {100 * expected[num_drawn:].sum():.2g} %" in shown
    assert_allclose(axes.get_images()[0].get_array().ravel(), expected[:num_drawn], rtol=1e-4)


def test_empty_pieces() -> None:
    _, axes, expected = draw(["", "", "a", ""])
    assert page(axes) == ["□a"]
    assert_allclose(axes.get_images()[0].get_array(), [[expected[:2].sum(), expected[2:].sum()]], rtol=1e-5)
    maps = make_maps({"x": (3,)})
    figure = view_figure(AttentionView(maps=maps, seen={"x": SeenText(pieces=[])}))
    assert not figure.axes


@pytest.mark.parametrize("pieces", ["abc", [b"a"], [1]])
def test_pieces_are_texts(pieces: list[str]) -> None:
    with pytest.raises(ValueError, match="pieces must be a list of texts"):
        SeenText(pieces=pieces)
