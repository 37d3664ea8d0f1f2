from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import ImageFolder

from perceiver_io.tasks.image_classification.data import ImageClassificationData, load_data


@pytest.fixture(scope="module")
def digits() -> ImageClassificationData:
    return load_data("digits")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def picture(value: int) -> Image.Image:
    return Image.fromarray(np.full((4, 5, 3), value, dtype=np.uint8))


def make_folder(root: Path, counts: dict[str, int]) -> Path:
    """Writes so many images into each folder; all differ."""
    value = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture(value).save(root / name / f"{number:02}.png")
            value += 1
    return root


def table(labels: list[object], feature: object = None) -> datasets.Dataset:
    images = [picture(index) for index in range(len(labels))]
    rows = datasets.Dataset.from_dict({"img": images, "kind": labels, "other": list(range(len(labels)))})
    return rows if feature is None else rows.cast_column("kind", feature)


def values(rows: datasets.Dataset) -> list[int]:
    """The grey value of each image of `picture`."""
    return [image.getpixel((0, 0))[0] for image in rows["image"]]


def paths(rows: datasets.Dataset) -> list[str]:
    return [image["path"] for image in rows.cast_column("image", datasets.Image(decode=False))["image"]]


# Digits


def test_digits_are_those_of_scikit_learn(digits: ImageClassificationData):
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1293, 144, 360)
    assert digits.class_names == tuple("0123456789")
    assert digits.train.features == {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list("0123456789")),
    }
    expected = Counter(
        (label, np.round(image * 255 / 16).astype(np.uint8).tobytes())
        for image, label in zip(load_digits().images, load_digits().target, strict=True)
    )
    got: Counter[tuple[int, bytes]] = Counter()
    for rows in (digits.train, digits.validation, digits.test):
        for row in rows:
            assert row["image"].mode == "L"
            got[row["label"], np.asarray(row["image"]).tobytes()] += 1
    assert got == expected


def test_splits_are_stratified(digits: ImageClassificationData):
    whole = Counter(load_digits().target.tolist())
    for rows, fraction in ((digits.test, 0.2), (digits.validation, 0.08)):
        for label, count in Counter(rows["label"][:]).items():
            assert abs(count - fraction * whole[label]) <= 1


def test_the_seed_changes_the_validation_set_only(digits: ImageClassificationData):
    again, other = load_data("digits"), load_data("digits", seed=1)

    def fingerprint(rows: datasets.Dataset) -> list[bytes]:
        return [image["bytes"] for image in rows.cast_column("image", datasets.Image(decode=False))["image"]]

    assert fingerprint(again.validation) == fingerprint(digits.validation)
    assert fingerprint(other.test) == fingerprint(digits.test)
    assert fingerprint(other.validation) != fingerprint(digits.validation)


def test_no_validation_set(digits: ImageClassificationData):
    data = load_data("digits", validation_fraction=0)
    assert data.validation is None
    assert (len(data.train), len(data.test)) == (1437, 360)


# Folders of images


def test_folder_agrees_with_torchvision(tmp_path: Path):
    make_folder(tmp_path, {"dog": 6, "cat/indoors": 4, "cat/outdoors": 2, "10": 5, "9": 5})
    (tmp_path / ".git").mkdir()
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    (tmp_path / "dog" / ".hidden.png").write_text("not an image")
    data = load_data(tmp_path, validation_fraction=0.25, test_fraction=0.25)
    rows = [data.train, data.validation, data.test]
    got = [(path, label) for part in rows for path, label in zip(paths(part), part["label"], strict=True)]
    (tmp_path / ".git").rmdir()  # a class to torchvision
    reference = ImageFolder(
        tmp_path, is_valid_file=lambda path: path.endswith(".png") and ".hidden" not in path
    )
    expected = [(path, reference.classes[label]) for path, label in reference.samples]
    assert sorted((path, data.class_names[label]) for path, label in got) == sorted(expected)
    assert data.class_names == ("10", "9", "cat", "dog")
    assert len(set(got)) == len(got) == 22


@pytest.mark.parametrize("name", ["validation", "val", "valid"])
def test_folder_with_splits_of_its_own(tmp_path: Path, name: str):
    make_folder(tmp_path, {"train/a": 3, "train/b": 2, f"{name}/a": 1, f"{name}/b": 1, "test/b": 2})
    data = load_data(tmp_path)
    assert (values(data.train), values(data.validation), values(data.test)) == (
        [0, 1, 2, 3, 4],
        [5, 6],
        [7, 8],
    )
    assert data.test["label"][:] == [1, 1]


def test_folder_without_a_test_set(tmp_path: Path):
    make_folder(tmp_path, {"train/a": 10, "train/b": 10, "val/a": 1, "val/b": 1})
    data = load_data(tmp_path)
    assert (len(data.train), len(data.test), values(data.validation)) == (16, 4, [20, 21])


def test_classes_may_be_called_like_splits(tmp_path: Path):
    data = load_data(make_folder(tmp_path, {"train": 5, "tram": 5}), validation_fraction=0)
    assert data.class_names == ("train", "tram")


def spoil(root: Path) -> list[str]:
    """Adds five bad files to class a, and returns their names."""
    good = (root / "a" / "00.png").read_bytes()
    folder = root / "a"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        folder / "x.jpg"
    )
    (folder / "half.jpg").write_bytes((folder / "x.jpg").read_bytes()[:-500])
    (folder / "x.jpg").unlink()
    (folder / "half.png").write_bytes(good[: len(good) // 2])
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.png").touch()
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    return ["half.jpg", "half.png", "text.png", "empty.png", "gone.png"]


def test_bad_files_are_named(tmp_path: Path):
    names = spoil(make_folder(tmp_path, {"a": 10, "b": 10}))
    with pytest.raises(ValueError, match=r"5 of 25 images are missing or corrupt.*skip_bad_files") as error:
        load_data(tmp_path)
    for name in names:
        assert str(tmp_path / "a" / name) in str(error.value)
    assert "gone.png (missing)" in str(error.value)
    assert "text.png (not an image)" in str(error.value)


def test_files_of_formats_that_are_only_written_are_no_images(tmp_path: Path):
    make_folder(tmp_path, {"a": 10, "b": 10})
    (tmp_path / "a" / "notes.pdf").write_bytes(b"%PDF-1.4")
    assert len(values(load_data(tmp_path, validation_fraction=0).train)) == 16


def test_bad_files_can_be_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    names = spoil(make_folder(tmp_path, {"a": 10, "b": 10}))
    with caplog.at_level(logging.WARNING):
        data = load_data(tmp_path, skip_bad_files=True)
    assert sorted(values(data.train) + values(data.validation) + values(data.test)) == list(range(20))
    assert "5 of 25 images" in caplog.text
    assert all(name in caplog.text for name in names)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "no folders in it, expected images in folders named after their classes"),
        ({"a": 5}, "5 training images of 1 classes"),
        ({"a": 5, "b": 0}, r"no images in the folders \['b'\]"),
        ({"a": 5, "b": 2}, r"split in 3 sets, expected 3 at least of each class, got fewer of: b \(2\)"),
        ({"train/a": 3, "train/b": 3, "test/c": 1}, r"test has the classes \['c'\]"),
        ({"test/a": 3, "test/b": 3}, r"the splits \['test'\], expected a folder 'train'"),
        (dict.fromkeys("abcdefgh", 3), "fraction of 0.2 of 24 images cannot be held out"),
    ],
)
def test_bad_folders(tmp_path: Path, counts: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        load_data(make_folder(tmp_path, counts))


# Tables


def test_parquet(tmp_path: Path):
    (tmp_path / "data").mkdir()
    labels = ["tree", "bush"] * 10
    table(labels).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    data = load_data(tmp_path, image_column="img", label_column="kind")
    assert data.class_names == ("bush", "tree")
    assert data.train.column_names == ["image", "label"]
    assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4)
    for rows in (data.train, data.validation, data.test):
        assert [data.class_names[label] for label in rows["label"]] == [
            labels[value] for value in values(rows)
        ]


def test_saved_to_disk_with_splits_and_class_names(tmp_path: Path):
    feature = datasets.ClassLabel(names=["x", "y", "z"])
    splits = {
        "train": table([0, 1, 2, 2], feature),
        "dev": table([1], feature),
        "test": table([2, 0], feature),
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    data = load_data(tmp_path / "saved", image_column="img", label_column="kind")
    assert data.class_names == ("x", "y", "z")
    assert [rows["label"][:] for rows in (data.train, data.validation, data.test)] == [
        [0, 1, 2, 2],
        [1],
        [2, 0],
    ]


def from_hub(monkeypatch: pytest.MonkeyPatch, loaded: object, **options: object) -> ImageClassificationData:
    """Loads what the hub would give."""

    def load_dataset(name: str) -> object:
        assert name == "someone/pictures"
        if isinstance(loaded, Exception):
            raise loaded
        return loaded

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return load_data("someone/pictures", **{"image_column": "img", "label_column": "kind"} | options)


def test_integers_are_sorted_as_numbers(monkeypatch: pytest.MonkeyPatch):
    data = from_hub(monkeypatch, datasets.DatasetDict(train=table([10, 9, 2, 10, 9, 2] * 5)))
    assert data.class_names == ("2", "9", "10")
    assert sorted(Counter(data.test["label"][:]).items()) == [(0, 2), (1, 2), (2, 2)]


def test_a_test_set_without_labels_is_left_out(monkeypatch: pytest.MonkeyPatch):
    feature = datasets.ClassLabel(names=["x", "y"])
    splits = {"train": table([0, 1] * 10, feature), "test": table([-1, -1], feature)}
    data = from_hub(monkeypatch, datasets.DatasetDict(splits))
    assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4)


@pytest.mark.parametrize(
    ("loaded", "options", "message"),
    [
        ({"train": [1, 1, 1]}, {}, "3 training images of 1 classes"),
        (
            {"train": [0, 1], "test": [0, 2]},
            {},
            r"test set has the classes \['2'\], of which the training set",
        ),
        ({"train": [0, 1, None]}, {}, "1 images of the train split have no label"),
        ({"train": [0.5, 1.5]}, {}, "labels in column 'kind' are of the type .*float64"),
        ({"train": [[0], [1]]}, {}, "labels in column 'kind' are of the type .*List"),
        ({"test": [0, 1], "extra": [1, 0]}, {}, r"has the splits \['extra', 'test'\]"),
        (
            {"train": [0, 1]},
            {"label_column": "label"},
            r"no column 'label', it has \['img', 'kind', 'other'\]",
        ),
        ({"train": [0, 1]}, {"image_column": "image"}, "no column 'image'.*with image_column"),
        ({"train": [0, 1] * 3}, {"validation_fraction": 0.9}, "cannot be held out"),
    ],
)
def test_bad_tables(
    monkeypatch: pytest.MonkeyPatch, loaded: dict[str, list[object]], options: dict[str, object], message: str
):
    splits = {split: table(labels) for split, labels in loaded.items()}
    with pytest.raises(ValueError, match=message):
        from_hub(monkeypatch, datasets.DatasetDict(splits), **options)


def test_empty_table(monkeypatch: pytest.MonkeyPatch):
    rows = table([0, 1], datasets.ClassLabel(names=["x", "y"])).select([])
    with pytest.raises(ValueError, match="0 training images of 0 classes"):
        from_hub(monkeypatch, datasets.DatasetDict(train=rows))


def test_corrupt_images_in_a_table(tmp_path: Path):
    rows = table(["x", "y"] * 10)
    rows = rows.cast_column("img", datasets.Image(decode=False))
    rows = rows.map(
        lambda row, index: {"img": {"bytes": b"oh", "path": None}} if index == 3 else {}, with_indices=True
    )
    rows.cast_column("img", datasets.Image()).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"1 of 20 images .* row 3 of train \(not an image\)"):
        load_data(tmp_path, image_column="img", label_column="kind")


def test_the_hub_cannot_be_reached(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(
        ValueError, match=r"'someone/pictures' could not be loaded: Couldn't reach.*\"digits\""
    ):
        from_hub(monkeypatch, ConnectionError("Couldn't reach 'someone/pictures' on the Hub"))


@pytest.mark.parametrize("name", ["/no/such/folder", "no such id", "a/b/c", "./folder", ""])
def test_unknown_datasets(name: str):
    with pytest.raises(ValueError, match=r'no folder.*"digits", an existing folder .*hub'):
        load_data(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
        ({"validation_fraction": -0.1}, "validation_fraction=-0.1"),
        ({"test_fraction": 0.0}, "test_fraction=0.0"),
        ({"seed": 2**32}, "seed=4294967296, expected a number from 0 to 4294967295"),
    ],
)
def test_bad_numbers(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        load_data("digits", **options)
