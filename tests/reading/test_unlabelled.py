"""Data whose labels are passed over: where there are some, the sets are those of a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from perceiver_io.data import LabelledRows, read_labelled
from perceiver_io.data.settings import DataSettings
from perceiver_io.data.unlabelled import read_labelled_or_not, read_unlabelled
from perceiver_io.tasks.image_classification.data import IMAGES


def write(folder: Path, values: range) -> None:
    folder.mkdir(parents=True)
    for value in values:
        Image.new("L", (2, 2), value).save(folder / f"{value}.png")


def levels(rows: Any) -> list[int]:
    return sorted(int(np.asarray(rows[index]["image"]).flat[0]) for index in range(len(rows)))


def test_files_anywhere_below_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "trip" / "first day", range(12))
    write(tmp_path / "trip" / "second day" / "morning", range(12, 20))
    write(tmp_path / "trip" / "third day", range(20, 21))  # too few for a class
    found = read_unlabelled(DataSettings(dataset=str(tmp_path / "trip")), IMAGES, embedded={})
    parts = [levels(one) for one in (found.train, found.validation, found.test)]
    assert sorted(one for part in parts for one in part) == list(range(21)) and len(parts[2]) == 5
    assert found.class_names == ()
    settings = DataSettings(dataset=str(tmp_path / "trip"))
    either = read_labelled_or_not(settings, IMAGES, embedded={})
    assert either.class_names == () and levels(either.test) == parts[2]


@pytest.mark.parametrize("kind", ["classes", "embedded", "tables"])
def test_the_sets_of_data_with_labels_are_those_of_a_classifier(tmp_path: Path, kind: str) -> None:
    embedded: dict[str, Any] = {}
    name = str(tmp_path / "data")
    images = [Image.new("L", (2, 2), value) for value in range(40)]
    labels = [value % 2 for value in range(40)]
    if kind == "classes":
        write(tmp_path / "data" / "a", range(0, 20))
        write(tmp_path / "data" / "b", range(20, 40))
    elif kind == "embedded":
        name = "made"
        rows = [{"image": one, "label": label} for one, label in zip(images, labels, strict=True)]
        embedded = {"made": lambda: LabelledRows(rows, ["even", "odd"])}
    else:
        rows = datasets.Dataset.from_dict({"image": images, "label": labels})
        rows.cast_column("image", datasets.Image()).save_to_disk(name)
    settings = DataSettings(dataset=name)
    found = read_unlabelled(settings, IMAGES, embedded=embedded, seed=3)
    expected = read_labelled(settings, IMAGES, embedded=embedded, seed=3)
    for split in ("train", "validation", "test"):
        assert levels(found.named(split)) == levels(expected.named(split))
    assert found.class_names == ()
    kept = read_labelled_or_not(settings, IMAGES, embedded=embedded, seed=3)
    assert kept.class_names == expected.class_names and len(kept.class_names) == 2
    for index in range(len(kept.test)):
        assert kept.test[index]["label"] == expected.test[index]["label"]


def test_tables_without_labels_and_folders_of_sets(tmp_path: Path) -> None:
    images = [Image.new("L", (2, 2), value) for value in range(20)]
    rows = datasets.Dataset.from_dict({"picture": images}).cast_column("picture", datasets.Image())
    rows.save_to_disk(tmp_path / "table")
    settings = DataSettings(dataset=str(tmp_path / "table"), input_column="picture")
    found = read_unlabelled(settings, IMAGES, embedded={})
    assert len(found.train) + len(found.validation) + len(found.test) == 20
    write(tmp_path / "sets" / "train", range(10))
    write(tmp_path / "sets" / "test", range(10, 13))
    found = read_unlabelled(DataSettings(dataset=str(tmp_path / "sets")), IMAGES, embedded={})
    assert levels(found.test) == [10, 11, 12] and len(found.train) == 9


def test_what_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "tested" / "test", range(3))
    for name, message in (
        (None, "There is no dataset"),
        (str(tmp_path / "empty"), "has no images in it"),
        (str(tmp_path / "tested"), "expected a folder 'train'"),
        (str(tmp_path / "nowhere"), "There is no folder"),
    ):
        with pytest.raises(ValueError, match=message):
            read_unlabelled(DataSettings(dataset=name), IMAGES, embedded={})
    (tmp_path / "bad").mkdir()
    for index in range(8):
        Image.new("L", (2, 2), index).save(tmp_path / "bad" / f"{index}.png")
    (tmp_path / "bad" / "cut.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"cut\.png"):
        read_unlabelled(DataSettings(dataset=str(tmp_path / "bad")), IMAGES, embedded={})
    with pytest.raises(ValueError, match="has no column 'image'"):
        rows = datasets.Dataset.from_dict({"number": list(range(9))})
        rows.save_to_disk(tmp_path / "numbers")
        read_unlabelled(DataSettings(dataset=str(tmp_path / "numbers")), IMAGES, embedded={})
