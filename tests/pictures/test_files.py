"""What holds for the file of every picture."""

from __future__ import annotations

import os
import sys
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
from perceiver_io.pictures.learning_curve import draw_learning_curve


def read_png(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.convert("RGB")


def maps() -> list[AttentionMap]:
    logits = torch.randn(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    weights = logits.flatten(-2).softmax(-1).view_as(logits)
    parts = {"image": logits}
    return [
        AttentionMap(weights={"image": weights}, content=parts, position=parts, bias=torch.zeros(1, 2, 3))
    ]


DRAW: dict[str, Callable[[Path], None]] = {
    "confusion": lambda path: draw_confusion(np.eye(2, dtype=int), ["a", "b"], path),
    "learning curve": lambda path: draw_learning_curve(
        [{"loss": 2.0, "step": 1}, {"loss": 1.0, "step": 2}], path
    ),
    "attention": lambda path: draw_attention(np.zeros((4, 4), np.uint8), maps(), path),
    "attention overview": lambda path: draw_attention_overview(maps(), path),
}


@pytest.mark.parametrize("name", DRAW)
def test_files_are_pictures(name: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    DRAW[name](path)
    assert len(read_png(path).getcolors(1 << 20) or []) > 20
    assert path.stat().st_size > 5_000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", DRAW)
def test_needs_no_pyplot(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it fails
    DRAW[name](tmp_path / "picture.png")


@pytest.mark.parametrize("failing", ["replace", "write"])
def test_nothing_is_left_behind_when_saving_fails(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*args: object) -> None:
        raise OSError(28, "No space left on device")

    def half_a_file(figure: object, path: Path, **kwargs: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    if failing == "replace":
        monkeypatch.setattr(os, "replace", no_space)
    else:
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", half_a_file)
    with pytest.raises(OSError, match="No space left"):
        DRAW["confusion"](path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("picture.png", b"old")]


def test_suffix_says_the_format(tmp_path: Path) -> None:
    DRAW["confusion"](tmp_path / "confusion.svg")
    assert "<svg" in (tmp_path / "confusion.svg").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="supported formats"):
        DRAW["confusion"](tmp_path / "confusion.doc")
    assert [file.name for file in tmp_path.iterdir()] == ["confusion.svg"]


def test_only_a_file_is_written_to(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a file"):
        draw_confusion(np.eye(2, dtype=int), ["a", "b"], tmp_path)
    # Replacing what others read from would take it away from them; a test has no business with /dev/null itself.
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is not a file"):
        draw_confusion(np.eye(2, dtype=int), ["a", "b"], tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1
