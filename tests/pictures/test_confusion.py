from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from perceiver_io.pictures import confusion as pictures

HISTORY = [
    {"loss": 2.0, "learning_rate": 1e-3, "grad_norm": 1.0, "epoch": 1.0, "step": 10},
    {"eval_loss": 1.5, "eval_accuracy": 0.5, "eval_runtime": 0.1, "epoch": 1.0, "step": 10},
    {"loss": 0.1, "learning_rate": 5e-4, "grad_norm": 1.0, "epoch": 2.0, "step": 20},
    {"eval_loss": 0.4, "eval_accuracy": 0.875, "eval_runtime": 0.1, "epoch": 2.0, "step": 20},
    {"loss": 0.05, "learning_rate": 1e-4, "grad_norm": 1.0, "epoch": 3.0, "step": 30},
    {"eval_loss": 0.6, "eval_accuracy": 0.75, "eval_runtime": 0.1, "epoch": 3.0, "step": 30},
    {"train_loss": 0.7, "train_runtime": 3.0, "total_flos": 0.0, "epoch": 3.0, "step": 30},
]


def read_png(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.convert("RGB")


def panels(figure: Figure) -> dict[str, Axes]:
    return {str(axes.get_label()): axes for axes in figure.axes if axes.get_label() != "<colorbar>"}


def texts(axes: Axes) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in axes.texts}


def test_confusion_shows_counts_shares_and_accuracy() -> None:
    confusion = np.array([[8, 2, 0], [0, 0, 5], [0, 0, 25]])
    axes = panels(pictures.confusion_figure(confusion, ["cat", "$dog_$", "a_b"]))["confusion"]
    # (column, row): zeros appear on the diagonal only.
    assert texts(axes) == {(0, 0): "8", (1, 0): "2", (1, 1): "0", (2, 1): "5", (2, 2): "25"}
    assert axes.get_title() == "Accuracy 82.50 % (33 of 40)"
    np.testing.assert_allclose(axes.get_images()[0].get_array(), [[0.8, 0.2, 0], [0, 0, 1], [0, 0, 1]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "$dog_$", "a_b"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_confusion_of_a_class_without_images() -> None:
    axes = panels(pictures.confusion_figure(np.array([[3, 0], [0, 0]]), ["a", "b"]))["confusion"]
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), [[1, 0], [0, 0]])


@pytest.mark.parametrize(("num_classes", "num_texts"), [(30, 30), (31, 0), (200, 0)])
def test_confusion_of_many_classes_has_no_counts(num_classes: int, num_texts: int, tmp_path: Path) -> None:
    confusion, names = np.eye(num_classes, dtype=int), [f"class {index}" for index in range(num_classes)]
    figure = pictures.confusion_figure(confusion, names)
    assert len(panels(figure)["confusion"].texts) == num_texts
    assert figure.get_size_inches().max() < 17
    pictures.draw_confusion(confusion, names, tmp_path / "confusion.png")
    assert 5_000 < (tmp_path / "confusion.png").stat().st_size < 300_000


@pytest.mark.parametrize(
    ("confusion", "names"),
    [
        (np.eye(3, dtype=int), ["a", "b"]),
        (np.eye(2), ["a", "b"]),
        (np.zeros((2, 2), dtype=int), ["a", "b"]),
        (np.array([[1, -1], [0, 1]]), ["a", "b"]),
        (np.zeros((0, 0), dtype=int), []),
    ],
)
def test_refuses_what_is_no_confusion_matrix(confusion: np.ndarray, names: list[str]) -> None:
    with pytest.raises(ValueError, match="confusion matrix"):
        pictures.confusion_figure(confusion, names)


def test_learning_curve_shows_what_was_logged() -> None:
    loss, accuracy = pictures.learning_curve_figure(HISTORY).axes
    training, validation = loss.get_lines()
    np.testing.assert_array_equal(training.get_xydata(), [[1, 2], [2, 0.1], [3, 0.05]])
    np.testing.assert_array_equal(validation.get_xydata(), [[1, 1.5], [2, 0.4], [3, 0.6]])
    curve, best = accuracy.get_lines()
    np.testing.assert_array_equal(curve.get_xydata(), [[1, 0.5], [2, 0.875], [3, 0.75]])
    np.testing.assert_array_equal(best.get_xydata(), [[2, 0.875]])
    assert accuracy.get_title(loc="right") == "best 87.50 % at epoch 2"
    assert loss.get_yscale() == "log"


def test_learning_curve_without_validation() -> None:
    history = [{"loss": 2.0, "step": 1}, {"loss": 1.0, "step": 2}]
    assert pictures.has_losses(history)
    (loss,) = pictures.learning_curve_figure(history).axes
    assert (loss.get_xlabel(), loss.get_yscale()) == ("step", "linear")


def test_learning_curve_of_a_run_that_diverged(tmp_path: Path) -> None:
    history = [{"loss": loss, "step": step} for step, loss in enumerate([2.0, float("inf"), float("nan")])]
    pictures.draw_learning_curve(history, tmp_path / "curve.png")
    assert read_png(tmp_path / "curve.png").width > 300


@pytest.mark.parametrize("history", [[], [{"train_loss": 1.0, "epoch": 1.0, "step": 1}]])
def test_learning_curve_of_nothing(history: list[dict[str, float]]) -> None:
    assert not pictures.has_losses(history)
    with pytest.raises(ValueError, match="nothing was logged"):
        pictures.learning_curve_figure(history)


DRAW: dict[str, Callable[[Path], None]] = {
    "confusion": lambda path: pictures.draw_confusion(np.eye(2, dtype=int), ["a", "b"], path),
    "learning curve": lambda path: pictures.draw_learning_curve(HISTORY, path),
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


def test_missing_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"perceiver-io-toolkit\[train\]"):
        pictures.confusion_figure(np.eye(2, dtype=int), ["a", "b"])


def test_only_a_file_is_written_to(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a file"):
        pictures.draw_confusion(np.eye(2, dtype=int), ["a", "b"], tmp_path)
    with pytest.raises(ValueError, match="is not a file"):
        pictures.draw_confusion(np.eye(2, dtype=int), ["a", "b"], os.devnull)
    assert not Path(os.devnull).is_file()
