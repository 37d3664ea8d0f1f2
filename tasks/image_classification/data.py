"""Labelled images from scikit-learn, a folder or the Hugging Face hub, split once and for all."""

from __future__ import annotations

import io
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perceiver_io.extras import require

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

__all__ = ["ImageClassificationData", "load_data"]

logger = logging.getLogger(__name__)

TEST_SPLIT_SEED = 0

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
_NUM_FILES_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class ImageClassificationData:
    """Three sets of labelled images: to learn from, to choose the best checkpoint by, and to be judged by.

    Attributes:
        train: Training set; as the others with the columns ``image`` (`datasets.Image`) and ``label``
            (`datasets.ClassLabel`).
        validation: Validation set, None where none was asked for.
        test: Test set, which nothing is chosen by.
        class_names: Name of each class, by class index.
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset
    class_names: tuple[str, ...]


def load_data(
    dataset: str | os.PathLike[str],
    *,
    image_column: str = "image",
    label_column: str = "label",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    skip_bad_files: bool = False,
) -> ImageClassificationData:
    """Loads labelled images and splits them.

    Splits that the source has are used as they are (those without labels are left out). A missing test set is
    taken out of the training set with a fixed seed, so that it is the same images whatever ``seed`` is; a
    missing validation set is taken out of what remains. Both have the classes in the same proportions as the
    whole.

    The files of a local source are all decoded once, so that a bad one is found before the training and not in
    the middle of it.

    Args:
        dataset: One of

            - ``"digits"``, the 1,797 handwritten digits that come with scikit-learn;
            - a folder of images by class, ``<class>/<image>`` or ``{train,validation,test}/<class>/<image>``;
            - a folder that `datasets.load_dataset` or `datasets.load_from_disk` reads (of Parquet files, for
              example);
            - the id of a dataset on the Hugging Face hub.
        image_column: Column of the images, where the source has columns.
        label_column: Column of the labels (class indices or names), where the source has columns.
        validation_fraction: Part of the training set (without the test set) to validate on, where the source
            has no validation set; 0 for none.
        test_fraction: Part of all images to test on, where the source has no test set.
        seed: Decides which images are validated on, nothing else.
        skip_bad_files: Leave missing and corrupt images out, with a warning that names them.

    Raises:
        ValueError: The source is of no form named above, has not the columns, is empty, has one class, has a
            missing or corrupt image, has too few images to split, or tests on classes that it does not train on.
    """
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"Got validation_fraction={validation_fraction}, expected a number in [0, 1).")
    if not 0 < test_fraction < 1:
        raise ValueError(f"Got test_fraction={test_fraction}, expected a number in (0, 1).")
    if not 0 <= seed < 2**32:
        raise ValueError(f"Got seed={seed}, expected a number from 0 to {2**32 - 1}.")
    name, path = os.fspath(dataset), Path(dataset)
    is_folder = bool(name) and path.is_dir()
    if name == "digits":
        splits = {"train": _digits()}
    elif is_folder and not _holds_tables(path):
        splits = _image_folder(path)
    else:
        splits = _encode_labels(_select_columns(_load(name), image_column, label_column), label_column)
    if is_folder and name != "digits":
        splits = _drop_bad_images(splits, skip=skip_bad_files)

    class_names = tuple(splits["train"].features["label"].names)
    num_classes = len(set(_labels(splits["train"])))
    if num_classes < 2:
        raise ValueError(
            f"{name!r} has {len(splits['train'])} training images of {num_classes} classes, "
            "expected images of two classes at least."
        )
    _check_known_classes(splits)
    if "test" not in splits:
        parts = 2 if "validation" in splits or validation_fraction == 0 else 3
        splits["train"], splits["test"] = _hold_out(
            splits["train"], test_fraction, TEST_SPLIT_SEED, parts=parts
        )
    if "validation" not in splits and validation_fraction > 0:
        splits["train"], splits["validation"] = _hold_out(splits["train"], validation_fraction, seed, parts=2)
    _check_known_classes(splits)
    return ImageClassificationData(
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits["test"],
        class_names=class_names,
    )


# Sources


def _digits() -> Dataset:
    """Returns the digits of scikit-learn, 8 x 8 pixels, with their 17 grey levels spread over 0 to 255."""
    digits = require("sklearn.datasets", extra="train").load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return _image_dataset(list(pixels), digits.target.tolist(), [str(name) for name in digits.target_names])


def _image_folder(root: Path) -> dict[str, Dataset]:
    """Reads ``root/<class>/**`` or ``root/<split>/<class>/**``; files that are no images by name are left out."""
    folders = {folder.name: folder for folder in _subfolders(root)}
    split_folders = {
        split: folders[alias]
        for split, aliases in _SPLIT_NAMES.items()
        for alias in aliases
        if alias in folders and _subfolders(folders[alias])
    }
    if not split_folders:
        split_folders = {"train": root}
    if "train" not in split_folders:
        raise ValueError(
            f"{root} has the splits {sorted(split_folders)}, expected a folder 'train' beside them."
        )
    class_names = [folder.name for folder in _subfolders(split_folders["train"])]
    if not class_names:
        raise ValueError(
            f"{root} has no folders in it, expected images in folders named after their classes: "
            "<class>/<image>, or {train,validation,test}/<class>/<image>."
        )
    splits = {}
    for split, folder in split_folders.items():
        if strangers := sorted({path.name for path in _subfolders(folder)} - set(class_names)):
            raise ValueError(
                f"{folder} has the classes {strangers}, which the training set does not have. "
                "Add training images of these classes, or take the folders away."
            )
        files = [_image_files(folder / name) for name in class_names]
        if split == "train" and (
            empty := [name for name, paths in zip(class_names, files, strict=True) if not paths]
        ):
            raise ValueError(f"{folder} has no images in the folders {empty}. Fill them or take them away.")
        labels = [label for label, paths in enumerate(files) for _ in paths]
        splits[split] = _image_dataset(list(chain.from_iterable(files)), labels, class_names)
    return splits


def _holds_tables(folder: Path) -> bool:
    """Says whether `datasets` is to read a folder, because it holds tables and not just images by class."""
    patterns = ("dataset_dict.json", "state.json", "*.parquet", "*/*.parquet", "metadata.*", "*/metadata.*")
    return any(next(folder.glob(pattern), None) for pattern in patterns)


def _load(name: str) -> Dataset | DatasetDict:
    """Loads a dataset that has been saved to disk, a folder of tables, or a dataset of the hub."""
    datasets = require("datasets", extra="train")
    forms = (
        'Expected "digits", an existing folder (of images by class, or of Parquet files), '
        "or the id of a dataset on the Hugging Face hub."
    )
    path = Path(name)
    if not (name and path.is_dir()) and not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise ValueError(f"There is no folder {name!r}. {forms}")
    try:
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            return datasets.load_from_disk(name)
        return datasets.load_dataset(name)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"The dataset {name!r} could not be loaded: {error}. {forms}") from error


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _image_files(folder: Path) -> list[str]:
    pil = require("PIL.Image", extra="image")
    registered = pil.registered_extensions()
    # Some formats are only ever written, such as PDF.
    extensions = {extension for extension, form in registered.items() if form in pil.OPEN}
    return sorted(
        os.path.join(parent, file)
        for parent, _, files in os.walk(folder, followlinks=True)
        for file in files
        if not file.startswith(".") and os.path.splitext(file)[1].lower() in extensions
    )


def _image_dataset(images: Sequence[Any], labels: Sequence[int], class_names: Sequence[str]) -> Dataset:
    datasets = require("datasets", extra="train")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(class_names))}
    )
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


# From what a source has to the columns "image" and "label"


def _select_columns(
    loaded: Dataset | DatasetDict, image_column: str, label_column: str
) -> dict[str, Dataset]:
    """Picks the splits and columns of a loaded dataset."""
    datasets = require("datasets", extra="train")
    available = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    if len(available) == 1:
        available = {"train": next(iter(available.values()))}
    splits = {
        split: available[alias]
        for split, aliases in _SPLIT_NAMES.items()
        for alias in aliases
        if alias in available
    }
    if "train" not in splits:
        raise ValueError(
            f"The dataset has the splits {sorted(available)}, expected one that is called 'train'."
        )
    for split, rows in splits.items():
        for column, option in ((image_column, "image_column"), (label_column, "label_column")):
            if column not in rows.column_names:
                raise ValueError(
                    f"The {split} split has no column {column!r}, it has {rows.column_names}. "
                    f"Name one of these with {option}."
                )
        rows = rows.with_format(None).select_columns([image_column, label_column])
        rows = rows.rename_columns({image_column: "image", label_column: "label"})
        splits[split] = rows.cast_column("image", datasets.Image())
    return splits


def _encode_labels(splits: dict[str, Dataset], label_column: str) -> dict[str, Dataset]:
    """Turns labels into class indices; test and validation sets that are published without labels are left out."""
    datasets = require("datasets", extra="train")
    feature = splits["train"].features["label"]
    is_value = isinstance(feature, datasets.Value) and re.match("u?int|(large_)?string|bool", feature.dtype)
    if not is_value and not isinstance(feature, datasets.ClassLabel):
        raise ValueError(
            f"The labels in column {label_column!r} are of the type {feature}, expected class names or indices. "
            "Name another column with label_column."
        )
    labels = {split: _labels(rows) for split, rows in splits.items()}
    no_label = {None, -1}
    labels = {
        split: values for split, values in labels.items() if split == "train" or not set(values) <= no_label
    }
    for split, values in labels.items():
        if missing := sum(value in no_label for value in values):
            raise ValueError(
                f"{missing} images of the {split} split have no label. Take them out of the dataset."
            )
    if isinstance(feature, datasets.ClassLabel):
        return {split: splits[split] for split in labels}
    classes = sorted(set().union(*labels.values()))
    index = {value: number for number, value in enumerate(classes)}
    target = datasets.ClassLabel(names=[str(value) for value in classes])
    return {
        split: splits[split]
        .remove_columns("label")
        .add_column("label", [index[value] for value in values], feature=target)
        for split, values in labels.items()
    }


def _labels(rows: Dataset) -> list[Any]:
    return list(rows["label"][:])


# Bad images


def _drop_bad_images(splits: dict[str, Dataset], *, skip: bool) -> dict[str, Dataset]:
    """Decodes all images once, and raises or (if they are to be skipped) warns where that fails."""
    good: dict[str, list[int]] = {split: [] for split in splits}
    bad: list[str] = []
    total = sum(len(rows) for rows in splits.values())
    progress = require("tqdm", extra="train").tqdm(
        total=total, desc="Checking images", unit=" images", delay=1, disable=None
    )
    with progress, ThreadPoolExecutor() as pool:  # decoding leaves Python's lock
        for split, rows in splits.items():
            encoded = rows.cast_column("image", require("datasets", extra="train").Image(decode=False))
            row = 0
            for batch in encoded.iter(batch_size=512):
                images = batch["image"]
                for image, fault in zip(images, pool.map(_fault, images), strict=True):
                    if fault is None:
                        good[split].append(row)
                    else:
                        bad.append(f"{(image or {}).get('path') or f'row {row} of {split}'} ({fault})")
                    row += 1
                progress.update(len(images))
    if not bad:
        return splits
    names = ", ".join(bad[:_NUM_FILES_NAMED])
    rest = f" and {len(bad) - _NUM_FILES_NAMED} more" if len(bad) > _NUM_FILES_NAMED else ""
    message = f"{len(bad)} of {total} images are missing or corrupt: {names}{rest}."
    if not skip:
        raise ValueError(f"{message} Repair or remove them, or set skip_bad_files to go on without them.")
    logger.warning("Skipped: %s", message)
    return {split: rows.select(good[split]) for split, rows in splits.items()}


def _fault(image: dict[str, Any] | None) -> str | None:
    """Returns what is wrong with an encoded image, None if it decodes."""
    pil = require("PIL.Image", extra="image")
    if image is None:
        return "missing"
    source = image["path"] if image["bytes"] is None else io.BytesIO(image["bytes"])
    try:
        with pil.open(source) as picture:
            # At an eighth of the size, where the format can do that (JPEG): reads all data, skips most work.
            picture.draft(None, (1, 1))
            picture.load()
    except FileNotFoundError:
        return "missing"
    except pil.UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # decoders raise what they like
        return str(error) or type(error).__name__
    return None


# Splits


def _check_known_classes(splits: dict[str, Dataset]) -> None:
    names = splits["train"].features["label"].names
    known = set(_labels(splits["train"]))
    for split, rows in splits.items():
        if strangers := sorted(set(_labels(rows)) - known):
            raise ValueError(
                f"The {split} set has the classes {[names[index] for index in strangers]}, of which the training "
                "set has no image. Add some to the training set, or hold out less."
            )


def _hold_out(rows: Dataset, fraction: float, seed: int, *, parts: int) -> tuple[Dataset, Dataset]:
    """Splits images in two, the classes in equal proportions: what remains, and the part held out.

    Args:
        rows: Labelled images.
        fraction: Size of the part held out.
        seed: Of the random choice.
        parts: In how many sets the images have to go in the end.
    """
    labels = _labels(rows)
    names = rows.features["label"].names
    if rare := [
        f"{names[index]} ({count})" for index, count in sorted(Counter(labels).items()) if count < parts
    ]:
        raise ValueError(
            f"Too few images to split in {parts} sets, expected {parts} at least of each class, "
            f"got fewer of: {', '.join(rare)}. Add images, or bring test and validation sets of your own."
        )
    try:
        remaining, held_out = require("sklearn.model_selection", extra="train").train_test_split(
            np.arange(len(labels)), test_size=fraction, random_state=seed, stratify=labels
        )
    except ValueError as error:
        raise ValueError(
            f"A fraction of {fraction} of {len(labels)} images cannot be held out with all classes in it: {error} "
            "Add images, or choose another fraction."
        ) from error
    return rows.select(np.sort(remaining)), rows.select(np.sort(held_out))
