"""Pictures of captions and panels: everything is there, whole, and nothing on top of another."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from perceiver_io.pictures.sheet import Sheet, scaled

RED, BLUE = (200, 10, 10), (10, 10, 200)


def places(picture: Image.Image, color: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of a colour."""
    rows, columns = np.nonzero((np.asarray(picture) == color).all(axis=-1))
    return rows, columns


def test_rows_below_one_another_and_panels_side_by_side() -> None:
    sheet = Sheet()
    sheet.row([Image.new("RGB", (30, 20), RED), Image.new("RGB", (50, 40), BLUE)], gap=9)
    sheet.row([Image.new("RGB", (10, 10), RED)])
    picture = sheet.picture()
    red, blue = places(picture, RED), places(picture, BLUE)
    assert len(red[0]) == 30 * 20 + 10 * 10 and len(blue[0]) == 50 * 40
    assert blue[1].min() - red[1].max() == 1 + 9
    assert red[0].max() > blue[0].max()
    # The same margin all around.
    assert red[1].min() == picture.width - 1 - blue[1].max() == red[0].min()


def test_captions_are_above_their_panels_and_never_cut() -> None:
    sheet = Sheet()
    sheet.row([Image.new("RGB", (4, 20), color) for color in (RED, BLUE)], captions=["a long caption", "b"])
    pixels = np.asarray(sheet.picture())
    red, blue = places(sheet.picture(), RED), places(sheet.picture(), BLUE)
    text = np.nonzero((pixels.sum(axis=-1) < 300) & (pixels.max(axis=-1) < 150))
    assert text[0].max() < red[0].min()
    # The second panel waits for the end of the first one's caption.
    assert blue[1].min() - red[1].min() > 60
    assert text[1].max() < pixels.shape[1] - 10


def test_a_line_takes_no_panel_s_place_and_a_sheet_has_its_least_width() -> None:
    with_line, without = Sheet(min_width=300), Sheet(min_width=300)
    with_line.line("title")
    for sheet in (with_line, without):
        sheet.row([Image.new("RGB", (30, 20), RED)])
    assert (
        with_line.picture().width
        == without.picture().width
        == 300 + 2 * places(without.picture(), RED)[1].min()
    )
    assert with_line.picture().height > without.picture().height
    assert len(places(with_line.picture(), RED)[0]) == 600


@pytest.mark.parametrize("size", [(12, 8), (2, 1)])
def test_scaled(size: tuple[int, int]) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, 3:] = 255
    image = scaled(pixels, size)
    assert image.size == size
    if size[1] > 4:  # enlarged pixels stay squares
        np.testing.assert_array_equal(np.asarray(image), pixels.repeat(2, axis=0).repeat(2, axis=1))
