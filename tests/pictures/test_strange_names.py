"""Names of strangers in pictures: no surrogate, formula, escape or line break ends or bends the drawing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.pictures.attention import draw_attention
from perceiver_io.pictures.attention_overview import draw_attention_overview
from perceiver_io.pictures.confusion import draw_confusion
from perceiver_io.pictures.piano_roll import Roll, draw_piano_rolls
from perceiver_io.pictures.sheet import Sheet
from perceiver_io.tasks.point_cloud_segmentation.picture import draw_parts
from perceiver_io.tasks.semantic_segmentation.picture import draw_segmentation

# A file's name that is no text, a formula that is none, what would clear a terminal, lines, what no font has.
NAMES = ["f\udcff \x1b[2J\x07", "$x_{$ one\ntwo\u2028three \U000fffff\u202e名", "x" * 10_000]


def attention_map(name: str) -> AttentionMap:
    logits = torch.zeros(1, 2, 3, 4, 4)
    weights = logits.flatten(-2).softmax(-1).view_as(logits)
    parts = {name: logits}
    return AttentionMap(weights={name: weights}, content=parts, position=parts, bias=torch.zeros(1, 2, 3))


def roll(name: str) -> Roll:
    return Roll(title=name, pitch=np.array([60, 64]), start=np.array([0.0, 1.0]), end=np.array([1.0, 2.0]))


def sheet(name: str, path: Path) -> None:
    picture = Sheet()
    picture.line(name[:100])
    picture.row([Image.new("RGB", (4, 4))], captions=[name[:100]])
    picture.picture().save(path)


def parts(name: str, path: Path) -> None:
    cloud, classes = np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1])
    draw_parts([cloud], [classes], [classes], [name, "b"], path)


def segments(name: str, path: Path) -> None:
    classes = np.zeros((1, 4, 4), np.int64)
    draw_segmentation([torch.zeros(3, 4, 4, dtype=torch.uint8)], classes, classes, [name, "b"], path)


DRAW: dict[str, Callable[[str, Path], object]] = {
    "confusion": lambda name, path: draw_confusion(np.eye(2, dtype=int), [name, "b"], path),
    "attention": lambda name, path: draw_attention(
        np.zeros((4, 4), np.uint8), [attention_map(name)], path, title=name, input_name=name
    ),
    "attention overview": lambda name, path: draw_attention_overview([attention_map(name)], path, title=name),
    "piano roll": lambda name, path: draw_piano_rolls([roll(name)], path),
    "sheet": sheet,
    "parts of clouds": parts,
    "segments": segments,
}


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize("draw", DRAW)
def test_any_name_can_be_drawn(draw: str, name: str, tmp_path: Path) -> None:
    DRAW[draw](name, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 500
