"""Piano rolls: a bar for each note, where and when it sounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceiver_io.pictures.piano_roll import Roll, draw_piano_rolls, piano_roll_figure


def roll(**changes: object) -> Roll:
    of = {"title": "A tune", "pitch": [60, 64, 72], "start": [0.0, 1.0, 2.5], "end": [1.0, 2.5, 4.0]}
    of |= changes  # type: ignore[arg-type]
    return Roll(**{name: np.array(value) if isinstance(value, list) else value for name, value in of.items()})


def bars(axes: object) -> np.ndarray:
    """(N, 4) of left, right, bottom and top."""
    (collection,) = axes.collections  # type: ignore[attr-defined]
    boxes = [path.get_extents() for path in collection.get_paths()]
    return np.array([[box.x0, box.x1, box.y0, box.y1] for box in boxes])


def test_a_bar_lies_where_its_note_sounds() -> None:
    axes, later = piano_roll_figure(
        [roll(), roll(title="Another", given=[True, True, False], end=[1.0, 2.5, 8.0])]
    ).axes
    found = bars(axes)
    assert axes.get_xlim() == later.get_xlim() == (0, 8)
    np.testing.assert_allclose(found[:, 0], [0, 1, 2.5])
    np.testing.assert_allclose(found[:, 1], [1, 2.5, 4], atol=0.02)
    np.testing.assert_allclose(found[:, 2:].mean(1), [60, 64, 72])
    low, high = axes.get_ylim()
    assert low < 60 and high > 72
    colours = later.collections[0].get_facecolors()
    assert (colours[0] == colours[1]).all() and (colours[1] != colours[2]).any()
    assert later.get_title(loc="left") == "Another"
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert "C4" in labels and dict(zip(labels, axes.get_yticks(), strict=True))["C4"] == 60


def test_of_a_long_piece_the_first_minute_is_drawn() -> None:
    (axes,) = piano_roll_figure([roll(start=[0.0, 59.0, 61.0], end=[1.0, 63.0, 80.0])]).axes
    assert axes.get_xlim() == (0, 60)
    found = bars(axes)
    assert len(found) == 2 and found[:, 1].max() <= 60


def test_music_without_notes_is_an_empty_row(tmp_path: Path) -> None:
    draw_piano_rolls([roll(pitch=[], start=[], end=[])], tmp_path / "roll.png")
    with Image.open(tmp_path / "roll.png") as image:
        assert image.width > 500
    with pytest.raises(ValueError, match="no music to draw"):
        piano_roll_figure([])
