from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import train_test_split
from torchvision.datasets import ImageFolder

from perceiver_io.data import Content, Splits, read_labelled
from perceiver_io.data.settings import DataSettings
from perceiver_io.data.sources import labelled_dataset
from perceiver_io.media.images import image_fault, image_suffixes

IMAGES = Content(
    column="image", noun="images", feature=datasets.Image, suffixes=image_suffixes, fault=image_fault
)


def shades() -> datasets.Dataset:
    """An embedded set: thirty images of two classes, twice as many of the second."""
    return labelled_dataset(
        {IMAGES: [picture(index) for index in range(30)]}, [0, 1, 1] * 10, ["light", "dark"]
    )


def load(dataset: object, *, seed: int = 0, **settings: Any) -> Splits:
    name = None if dataset is None else str(dataset)
    return read_labelled(
        DataSettings(dataset=name, **settings), IMAGES, embedded={"shades": shades}, seed=seed
    )


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


# Embedded sets


def test_an_embedded_set_is_split_as_scikit_learn_splits() -> None:
    labels = [0, 1, 1] * 10
    rest, test = train_test_split(range(30), test_size=0.2, random_state=0, stratify=labels)
    rest = sorted(rest)
    train, validation = train_test_split(
        rest, test_size=0.1, random_state=5, stratify=[labels[index] for index in rest]
    )
    data = load("shades", seed=5)
    assert values(data.test) == sorted(test)
    assert values(data.validation) == sorted(validation)
    assert values(data.train) == sorted(train)
    assert data.class_names == ("light", "dark")
    for rows in (data.train, data.validation, data.test):
        assert rows["label"][:] == [labels[value] for value in values(rows)]


def test_the_seed_changes_the_validation_set_only() -> None:
    data, again, other = load("shades"), load("shades"), load("shades", seed=1)
    assert values(again.validation) == values(data.validation) != values(other.validation)
    assert values(again.test) == values(data.test) == values(other.test)


def test_no_validation_set() -> None:
    data = load("shades", validation_fraction=0)
    assert data.validation is None
    assert (len(data.train), len(data.test)) == (24, 6)
    with pytest.raises(ValueError, match="no data in the split 'validation'"):
        data.named("validation")
    assert data.named("train") is data.train


# Folders of images


def test_folder_agrees_with_torchvision(tmp_path: Path) -> None:
    make_folder(tmp_path, {"dog": 6, "cat/indoors": 4, "cat/outdoors": 2, "10": 5, "9": 5})
    (tmp_path / ".git").mkdir()
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    (tmp_path / "dog" / ".hidden.png").write_text("not an image")
    data = load(tmp_path, validation_fraction=0.25, test_fraction=0.25)
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
def test_folder_with_splits_of_its_own(tmp_path: Path, name: str) -> None:
    make_folder(tmp_path, {"train/a": 3, "train/b": 2, f"{name}/a": 1, f"{name}/b": 1, "test/b": 2})
    data = load(tmp_path)
    assert (values(data.train), values(data.validation), values(data.test)) == (
        [0, 1, 2, 3, 4],
        [5, 6],
        [7, 8],
    )
    assert data.test["label"][:] == [1, 1]


def test_folder_without_a_test_set(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train/a": 10, "train/b": 10, "val/a": 1, "val/b": 1})
    data = load(tmp_path)
    assert (len(data.train), len(data.test), values(data.validation)) == (16, 4, [20, 21])


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    data = load(make_folder(tmp_path, {"train": 5, "tram": 5}), validation_fraction=0)
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


def test_bad_files_are_named(tmp_path: Path) -> None:
    names = spoil(make_folder(tmp_path, {"a": 10, "b": 10}))
    with pytest.raises(ValueError, match=r"5 of 25 images are missing or corrupt.*skip_bad_files") as error:
        load(tmp_path)
    for name in names:
        assert str(tmp_path / "a" / name) in str(error.value)
    assert "gone.png (missing)" in str(error.value)
    assert "text.png (not an image)" in str(error.value)


def test_files_of_formats_that_are_only_written_are_no_images(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 10, "b": 10})
    (tmp_path / "a" / "notes.pdf").write_bytes(b"%PDF-1.4")
    assert len(values(load(tmp_path, validation_fraction=0).train)) == 16


def test_bad_files_can_be_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = spoil(make_folder(tmp_path, {"a": 10, "b": 10}))
    with caplog.at_level(logging.WARNING):
        data = load(tmp_path, skip_bad_files=True)
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
        (
            dict.fromkeys("abcdefgh", 3),
            "fraction of 0.2 of 24 samples cannot be held out with all classes in it",
        ),
    ],
)
def test_bad_folders(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(make_folder(tmp_path, counts))


# Tables


def test_parquet(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    labels = ["tree", "bush"] * 10
    table(labels).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    data = load(tmp_path, input_column="img", label_column="kind")
    assert data.class_names == ("bush", "tree")
    assert data.train.column_names == ["image", "label"]
    assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4)
    for rows in (data.train, data.validation, data.test):
        assert [data.class_names[label] for label in rows["label"]] == [
            labels[value] for value in values(rows)
        ]


def test_saved_to_disk_with_splits_and_class_names(tmp_path: Path) -> None:
    feature = datasets.ClassLabel(names=["x", "y", "z"])
    splits = {
        "train": table([0, 1, 2, 2], feature),
        "dev": table([1], feature),
        "test": table([2, 0], feature),
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    data = load(tmp_path / "saved", input_column="img", label_column="kind")
    assert data.class_names == ("x", "y", "z")
    assert [rows["label"][:] for rows in (data.train, data.validation, data.test)] == [
        [0, 1, 2, 2],
        [1],
        [2, 0],
    ]


def from_hub(monkeypatch: pytest.MonkeyPatch, loaded: object, **options: object) -> Splits:
    """Loads what the hub would give."""

    def load_dataset(name: str) -> object:
        assert name == "someone/pictures"
        if isinstance(loaded, Exception):
            raise loaded
        return loaded

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return load("someone/pictures", **{"input_column": "img", "label_column": "kind"} | options)


def test_integers_are_sorted_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    data = from_hub(monkeypatch, datasets.DatasetDict(train=table([10, 9, 2, 10, 9, 2] * 5)))
    assert data.class_names == ("2", "9", "10")
    assert sorted(Counter(data.test["label"][:]).items()) == [(0, 2), (1, 2), (2, 2)]


def test_a_test_set_without_labels_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
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
        ({"train": [0, 1]}, {"input_column": "image"}, "no column 'image'.*with input_column"),
        ({"train": [0, 1] * 3}, {"validation_fraction": 0.9}, "cannot be held out"),
    ],
)
def test_bad_tables(
    monkeypatch: pytest.MonkeyPatch, loaded: dict[str, list[object]], options: dict[str, object], message: str
) -> None:
    splits = {split: table(labels) for split, labels in loaded.items()}
    with pytest.raises(ValueError, match=message):
        from_hub(monkeypatch, datasets.DatasetDict(splits), **options)


@pytest.mark.parametrize(
    "other", [table([1], datasets.ClassLabel(names=["y", "x"])), table(["x"]), table([0])]
)
def test_splits_whose_labels_mean_something_else(
    other: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = {"train": table([0, 1] * 10, datasets.ClassLabel(names=["x", "y"])), "test": other}
    with pytest.raises(ValueError, match=r"in the test split, but ClassLabel.* in the train split"):
        from_hub(monkeypatch, datasets.DatasetDict(splits))


def test_columns_that_cannot_be_read(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"image": [1, 2], "label": ["a", "b"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"column 'image' of the train split holds no images, .*int64"):
        load(tmp_path / "saved")
    with pytest.raises(ValueError, match="cannot both be in the column 'label'"):
        load(tmp_path / "saved", input_column="label")


def test_empty_table(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table([0, 1], datasets.ClassLabel(names=["x", "y"])).select([])
    with pytest.raises(ValueError, match="0 training images of 0 classes"):
        from_hub(monkeypatch, datasets.DatasetDict(train=rows))


def test_corrupt_images_in_a_table(tmp_path: Path) -> None:
    rows = table(["x", "y"] * 10)
    rows = rows.cast_column("img", datasets.Image(decode=False))
    rows = rows.map(
        lambda row, index: {"img": {"bytes": b"oh", "path": None}} if index == 3 else {}, with_indices=True
    )
    rows.cast_column("img", datasets.Image()).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"1 of 20 images .* row 3 of train \(not an image\)"):
        load(tmp_path, input_column="img", label_column="kind")


def test_the_hub_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match=r"'someone/pictures' could not be loaded: Couldn't reach.*embedded one .shades."
    ):
        from_hub(monkeypatch, ConnectionError("Couldn't reach 'someone/pictures' on the Hub"))


@pytest.mark.parametrize("name", ["/no/such/folder", "no such id", "a/b/c", "./folder", ""])
def test_unknown_datasets(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"no folder.*embedded one \(shades\), an existing folder \(of images by class.*hub"
    ):
        load(name)


def test_no_dataset() -> None:
    with pytest.raises(ValueError, match=r"There is no dataset. Choose an embedded one \(shades\)"):
        load(None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0, expected a fraction"),
        ({"validation_fraction": -0.1}, "validation_fraction is -0.1, expected a fraction"),
        ({"test_fraction": 0.0}, "test_fraction is 0.0, expected a fraction"),
        ({"test_fraction": 1.0}, "test_fraction is 1.0, expected a fraction"),
    ],
)
def test_bad_numbers(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("shades", **options)


def test_an_empty_test_set_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train/a": 10, "train/b": 10, "test/a": 0, "test/b": 0})
    with pytest.raises(ValueError, match="The test set is empty"):
        load(tmp_path)


# Other contents


TEXTS = Content(
    column="text",
    noun="texts",
    feature=lambda decode=True: datasets.Value("string"),
    suffixes=lambda: {".txt"},
    fault=lambda text: None if text else "empty",
)


def texts(texts: list[str]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": texts, "label": ["good", "bad"] * (len(texts) // 2)})


def test_a_table_of_another_content(tmp_path: Path) -> None:
    texts([f"text {index}" for index in range(20)]).to_parquet(tmp_path / "train.parquet")
    data = read_labelled(DataSettings(dataset=str(tmp_path)), TEXTS, embedded={})
    rows = [row for part in (data.train, data.validation, data.test) for row in part]
    assert sorted(row["text"] for row in rows) == sorted(f"text {index}" for index in range(20))
    assert data.class_names == ("bad", "good")
    assert all(row["label"] == (int(row["text"].split()[1]) + 1) % 2 for row in rows)


def test_faults_of_another_content(tmp_path: Path) -> None:
    texts(["a", ""] * 10).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"10 of 20 texts are missing or corrupt: row 1 of train \(empty\)"):
        read_labelled(DataSettings(dataset=str(tmp_path)), TEXTS, embedded={})


def test_without_embedded_sets_none_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"There is no dataset. Choose an existing folder \(of texts by class"
    ):
        read_labelled(DataSettings(), TEXTS, embedded={})


def test_files_are_told_by_their_suffix(tmp_path: Path) -> None:
    for name in ("a/1.txt", "a/2.TXT", "a/3.png", "b/1.txt", "b/2.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    data = read_labelled(
        DataSettings(dataset=str(tmp_path), validation_fraction=0, test_fraction=0.5), TEXTS, embedded={}
    )
    found = [Path(row["text"]).relative_to(tmp_path) for rows in (data.train, data.test) for row in rows]
    assert sorted(map(str, found)) == ["a/1.txt", "a/2.TXT", "b/1.txt", "b/2.txt"]
