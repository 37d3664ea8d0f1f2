"""Events of music with the attention to them: notes and strips over the same events."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_io.pictures.attention_view import AttentionView, view_figure
from perceiver_io.pictures.seen_music import SeenMusic
from tests.pictures.random_maps import make_maps

NOTES = {"pitch": np.array([60, 72]), "first": np.array([1, 3]), "last": np.array([4, 9])}


def test_notes_and_strips_are_over_the_same_events() -> None:
    maps = make_maps({"tokens": (9,)})
    view = AttentionView(maps=maps, seen={"tokens": SeenMusic(num_events=9, **NOTES)})
    figure = view_figure(view, latents=[1])
    notes, *strips = figure.axes
    boxes = [path.get_extents() for path in notes.collections[0].get_paths()]
    assert [(box.x0, round(box.x1)) for box in boxes] == [(1, 4), (3, 9)]
    assert {axes.get_xlim() for axes in [notes, *strips]} == {(0, 9)}


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="There are 2 notes, but last is of 1"):
        SeenMusic(num_events=9, **{**NOTES, "last": np.array([4])})
    assert SeenMusic(num_events=0, **{name: one[:0] for name, one in NOTES.items()}).is_empty
