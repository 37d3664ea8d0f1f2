from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perceiver_io.pictures.confusion import confusion_figure, draw_confusion


def panels(figure: Figure) -> dict[str, Axes]:
    return {str(axes.get_label()): axes for axes in figure.axes if axes.get_label() != "<colorbar>"}


def texts(axes: Axes) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in axes.texts}


def test_confusion_shows_counts_shares_and_accuracy() -> None:
    confusion = np.array([[8, 2, 0], [0, 0, 5], [0, 0, 25]])
    axes = panels(confusion_figure(confusion, ["cat", "$dog_$", "a_b"]))["confusion"]
    # (column, row): zeros appear on the diagonal only.
    assert texts(axes) == {(0, 0): "8", (1, 0): "2", (1, 1): "0", (2, 1): "5", (2, 2): "25"}
    assert axes.get_title() == "Accuracy 82.50 % (33 of 40)"
    np.testing.assert_allclose(axes.get_images()[0].get_array(), [[0.8, 0.2, 0], [0, 0, 1], [0, 0, 1]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "$dog_$", "a_b"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_confusion_of_a_class_without_images() -> None:
    axes = panels(confusion_figure(np.array([[3, 0], [0, 0]]), ["a", "b"]))["confusion"]
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), [[1, 0], [0, 0]])


@pytest.mark.parametrize(("num_classes", "num_texts"), [(30, 30), (31, 0), (200, 0)])
def test_confusion_of_many_classes_has_no_counts(num_classes: int, num_texts: int, tmp_path: Path) -> None:
    confusion, names = np.eye(num_classes, dtype=int), [f"class {index}" for index in range(num_classes)]
    figure = confusion_figure(confusion, names)
    assert len(panels(figure)["confusion"].texts) == num_texts
    assert figure.get_size_inches().max() < 17
    draw_confusion(confusion, names, tmp_path / "confusion.png")
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
        confusion_figure(confusion, names)


def test_missing_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"perceiver-io-toolkit\[train\]"):
        confusion_figure(np.eye(2, dtype=int), ["a", "b"])
