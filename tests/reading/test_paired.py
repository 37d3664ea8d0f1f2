from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from perceiver_io.data import Content, LabelledRows, Splits
from perceiver_io.data.paired import read_paired
from perceiver_io.data.settings import DataSettings
from perceiver_io.tasks.image_classification.data import IMAGES
from perceiver_io.tasks.semantic_segmentation.data import MASKS

FOLDERS = {"image": ("images", "img"), "mask": ("masks", "annotations")}


def made() -> LabelledRows:
    return LabelledRows([{"image": index, "mask": -index} for index in range(20)], ("paper", "ink"))


def load(dataset: object, *, seed: int = 0, within: Content | None = None, **settings: Any) -> Splits:
    name = None if dataset is None else str(dataset)
    return read_paired(
        DataSettings(dataset=name, **{"label_column": "mask", **settings}),
        IMAGES,
        MASKS,
        folders=FOLDERS,
        embedded={"made": made},
        seed=seed,
        within=within,
    )


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def fill(folder: Path, names: list[str], *, first: int = 0, suffix: str = ".png") -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(names, start=first):
        Image.fromarray(np.full((4, 5), number, dtype=np.uint8)).save(folder / f"{name}{suffix}")


def values(rows: Any) -> list[tuple[int, int]]:
    pairs = [(np.asarray(row["image"]), np.asarray(row["mask"])) for row in rows]
    return [(int(image.flat[0]), int(mask.flat[0])) for image, mask in pairs]


NAMES = [f"{index:02}" for index in range(10)]


def test_sets_with_two_folders_each(tmp_path: Path) -> None:
    for split, names in (("train", NAMES), ("val", NAMES[:3]), ("test", NAMES[:2])):
        fill(tmp_path / split / "images", names)
        fill(tmp_path / split / "masks", names, first=100)
    data = load(tmp_path)
    assert values(data.train) == [(index, 100 + index) for index in range(10)]
    assert data.validation is not None and len(data.validation) == 3 and len(data.test) == 2
    assert data.class_names == ()


def test_two_folders_with_the_sets_in_each(tmp_path: Path) -> None:
    for split, names in (("training", NAMES), ("validation", NAMES[:3])):
        fill(tmp_path / "images" / split, names, suffix=".jpg")
        fill(tmp_path / "annotations" / split, names, first=50)
    data = load(tmp_path)
    assert data.validation is not None and len(data.validation) == 3
    assert len(data.train) == 8 and len(data.test) == 2  # the test set is taken out
    assert {mask - image for image, mask in values(data.train)} == {50}


def test_two_folders_without_sets(tmp_path: Path) -> None:
    fill(tmp_path / "img" / "deep", NAMES)
    fill(tmp_path / "masks" / "deep", NAMES, first=20)
    one, other = load(tmp_path), load(tmp_path, seed=1)
    assert values(one.test) == values(other.test)  # whatever the seed is
    assert len(one.train) + len(one.validation or []) + len(one.test) == 10


def test_embedded_sets_are_split(tmp_path: Path) -> None:
    data = load("made")
    assert data.class_names == ("paper", "ink") and len(data.test) == 4
    assert all(row["image"] == -row["mask"] for row in data.test)


def test_tables(tmp_path: Path) -> None:
    pictures = [Image.fromarray(np.full((4, 5), number, dtype=np.uint8)) for number in range(10)]
    features = datasets.Features({"photo": datasets.Image(), "classes": datasets.Image()})
    table = datasets.Dataset.from_dict({"photo": pictures, "classes": pictures[::-1]}, features=features)
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "saved")
    data = load(tmp_path / "saved", input_column="photo", label_column="classes")
    assert {image + mask for image, mask in values(data.train)} == {9}
    with pytest.raises(ValueError, match="no column 'mask' of masks, it has"):
        load(tmp_path / "saved", input_column="photo")
    with pytest.raises(ValueError, match="cannot both be in the column 'photo'"):
        load(tmp_path / "saved", input_column="photo", label_column="photo")


def test_a_file_without_its_partner_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "images", NAMES)
    fill(tmp_path / "masks", NAMES[:-2])
    with pytest.raises(ValueError, match="masks has no masks for 08, 09: files that belong together"):
        load(tmp_path)
    fill(tmp_path / "more" / "images", NAMES[:3])
    fill(tmp_path / "more" / "masks", NAMES[:4])
    with pytest.raises(ValueError, match="images has no images for 03"):
        load(tmp_path / "more")


def test_two_files_of_one_name(tmp_path: Path) -> None:
    fill(tmp_path / "images", NAMES)
    fill(tmp_path / "masks", NAMES)
    Image.fromarray(np.zeros((4, 5), dtype=np.uint8)).save(tmp_path / "images" / "03.bmp")
    with pytest.raises(ValueError, match="several images that are called '03'"):
        load(tmp_path)


def test_corrupt_files_are_named_or_left_out(tmp_path: Path) -> None:
    fill(tmp_path / "images", NAMES)
    fill(tmp_path / "masks", NAMES)
    (tmp_path / "masks" / "04.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1 of 20 images and masks .*04\.png"):
        load(tmp_path)
    data = load(tmp_path, skip_bad_files=True)
    assert len(data.train) + len(data.validation or []) + len(data.test) == 9


@pytest.mark.parametrize("folders", [["photos"], ["images"], []])
def test_folders_of_other_names(tmp_path: Path, folders: list[str]) -> None:
    for name in folders:
        fill(tmp_path / name, NAMES)
    with pytest.raises(ValueError, match="expected images/<file> and masks/<file>"):
        load(tmp_path)


def test_sets_that_are_not_the_same(tmp_path: Path) -> None:
    fill(tmp_path / "images" / "train", NAMES)
    fill(tmp_path / "masks" / "train", NAMES)
    fill(tmp_path / "images" / "test", NAMES)
    with pytest.raises(ValueError, match=r"has the sets \['test', 'train'\], but .* has \['train'\]"):
        load(tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(ValueError, match="has no images in it"):
        load(tmp_path)


@pytest.mark.parametrize("dataset", [None, "", "nowhere/at/all"])
def test_no_data(dataset: str | None) -> None:
    with pytest.raises(ValueError, match="Choose an embedded one"):
        load(dataset)


@pytest.mark.parametrize("sets", [("",), ("train", "test")])
def test_targets_in_the_files_of_inputs(tmp_path: Path, sets: tuple[str, ...]) -> None:
    for split in sets:
        if split:
            fill(tmp_path / split, NAMES)
    if sets == ("",):
        fill(tmp_path / "deep", NAMES)
    with pytest.raises(ValueError, match="expected images/<file> and masks/<file>"):
        load(tmp_path)
    data = load(tmp_path, within=MASKS)
    assert {image - mask for image, mask in values(data.train)} == {0}
    assert len(data.test) == (10 if len(sets) == 2 else 2)


def test_folders_of_both_go_before_targets_within(tmp_path: Path) -> None:
    fill(tmp_path / "images", NAMES)
    fill(tmp_path / "masks", NAMES, first=20)
    assert {mask - image for image, mask in values(load(tmp_path, within=MASKS).train)} == {20}
