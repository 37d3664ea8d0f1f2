"""Where labelled data comes from: folders by class, tables, the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_io.data.content import Content
from perceiver_io.extras import require
from perceiver_io.files import is_path

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

__all__ = [
    "LABEL",
    "SPLIT_NAMES",
    "LabelledRows",
    "encode_labels",
    "files_of",
    "holds_tables",
    "labelled_dataset",
    "load_dataset",
    "named_splits",
    "nouns",
    "read_class_folders",
    "samples_of",
    "select_columns",
    "select_contents",
    "split_folders",
    "subfolders",
    "typed_columns",
]

_ADVICE = " Name another column with input_column."

LABEL = "label"

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""What the three sets are called by those who publish data."""


@dataclass(frozen=True)
class LabelledRows:
    """Rows that need no file, such as those of a set that is made up.

    Attributes:
        rows: Values by column, with the class index as `label`.
        class_names: Names of the classes, by index.
        groups: What each row was taken from, such as a speaker or a document: what is held out is whole ones. None
            where rows have nothing to do with each other.
    """

    rows: Sequence[Mapping[str, Any]]
    class_names: Sequence[str]
    groups: Sequence[Hashable] | None = None


def labelled_dataset(
    columns: Mapping[Content, Sequence[Any]], labels: Sequence[int], class_names: Sequence[str]
) -> Dataset:
    """Returns a dataset with a column for each content, and `label`."""
    datasets = require("datasets", extra="train")
    features: dict[str, Any] = {content.column: content.feature() for content in columns}
    features[LABEL] = datasets.ClassLabel(names=list(class_names))
    values = {content.column: list(column) for content, column in columns.items()}
    return datasets.Dataset.from_dict({**values, LABEL: labels}, features=datasets.Features(features))


def read_class_folders(root: Path, contents: Sequence[Content]) -> dict[str, Dataset]:
    """Reads ``root/<class>/**`` or ``root/<split>/<class>/**``; files of other kinds by name are left out.

    Of several contents, files whose paths are equal but for the ending belong together: ``cat/7.png`` and
    ``cat/7.wav``. What a sample lacks is None.

    Raises:
        ValueError: There are no such folders, a class is empty, or one is tested on that is not trained on.
    """
    noun = nouns(contents)
    found = {split: folder for split, folder in split_folders(root).items() if subfolders(folder)}
    if found and "train" not in found:
        raise ValueError(f"{root} has the splits {sorted(found)}, expected a folder 'train' beside them.")
    folders = found or {"train": root}
    class_names = [folder.name for folder in subfolders(folders["train"])]
    if not class_names:
        raise ValueError(
            f"{root} has no folders in it, expected {noun} in folders named after their classes: "
            "<class>/<file>, or {train,validation,test}/<class>/<file>."
        )
    splits = {}
    for split, folder in folders.items():
        if strangers := sorted({path.name for path in subfolders(folder)} - set(class_names)):
            raise ValueError(
                f"{folder} has the classes {strangers}, which the training set does not have. "
                f"Add training {noun} of these classes, or take the folders away."
            )
        samples = [samples_of(folder / name, contents) for name in class_names]
        if split == "train" and (
            empty := [name for name, found in zip(class_names, samples, strict=True) if not found]
        ):
            raise ValueError(f"{folder} has no {noun} in the folders {empty}. Fill them or take them away.")
        labels = [label for label, found in enumerate(samples) for _ in found]
        columns = {content: [one.get(content) for found in samples for one in found] for content in contents}
        splits[split] = labelled_dataset(columns, labels, class_names)
    return splits


def nouns(contents: Sequence[Content]) -> str:
    """Returns what messages call several contents: "images and sounds"."""
    *first, last = [content.noun for content in contents]
    return f"{', '.join(first)} and {last}" if first else last


def samples_of(folder: Path, contents: Sequence[Content]) -> list[dict[Content, Any]]:
    """Returns what columns hold of the files below a folder: those with equal paths but for the ending are one sample.

    Args:
        folder: The folder.
        contents: What is read.

    Raises:
        ValueError: Two files of one content are called alike.
    """
    samples: dict[str, dict[Content, Any]] = {}
    for content in contents:
        for file in files_of(folder, content.suffixes()):
            name = file if len(contents) == 1 else os.path.splitext(file)[0]
            sample = samples.setdefault(name, {})
            if content in sample:
                raise ValueError(
                    f"{folder} has several {content.noun} that are called {Path(name).name!r}, expected one: files "
                    "that are called alike belong together. Rename them."
                )
            sample[content] = content.stored(file)
    return [samples[name] for name in sorted(samples)]


def split_folders(root: Path) -> dict[str, Path]:
    """Returns the folders in a folder that are called as sets of data are, by "train", "validation" and "test"."""
    folders = {folder.name: folder for folder in subfolders(root)}
    return {
        split: folders[alias]
        for split, aliases in SPLIT_NAMES.items()
        for alias in aliases
        if alias in folders
    }


def holds_tables(folder: Path) -> bool:
    """Says whether `datasets` is to read a folder, because it holds tables and not just files by class."""
    patterns = ("dataset_dict.json", "state.json", "*.parquet", "*/*.parquet", "metadata.*", "*/metadata.*")
    return any(next(folder.glob(pattern), None) for pattern in patterns)


def load_dataset(name: str, *, forms: str) -> Dataset | DatasetDict:
    """Loads a dataset that has been saved to disk, a folder of tables, or a dataset of the hub.

    Args:
        name: The folder or id.
        forms: What is possible, a sentence for messages.

    Raises:
        ValueError: There is no such dataset, or it cannot be loaded.
    """
    datasets = require("datasets", extra="train")
    path = Path(name).expanduser()
    is_folder = bool(name) and path.is_dir()
    if not is_folder and (is_path(name) or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name)):
        raise ValueError(f"There is no folder {name!r:.200}. {forms}")
    try:
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            return datasets.load_from_disk(str(path))
        return datasets.load_dataset(str(path) if is_folder else name)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"The dataset {name!r:.200} could not be loaded: {error}. {forms}") from error


def subfolders(folder: Path) -> list[Path]:
    """Returns the folders in a folder, sorted, hidden ones left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def files_of(folder: Path, suffixes: set[str]) -> list[str]:
    """Returns the files below a folder that have one of the endings, sorted, hidden ones left out.

    Links to folders are followed, but not to those that have been read: one may lead to a folder that it lies in.
    """
    found: list[str] = []
    read: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in read:
            folders.clear()
            continue
        read.add(real)
        folders.sort(key=lambda name: (os.path.islink(os.path.join(parent, name)), name))
        found += [
            os.path.join(parent, file)
            for file in files
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in suffixes
        ]
    return sorted(found)


def named_splits(loaded: Mapping[str, Dataset] | Dataset) -> dict[str, Dataset]:
    """Returns the splits of a loaded dataset as "train", "validation" and "test".

    Raises:
        ValueError: There are several, and none of them is the training set.
    """
    available = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    if len(available) == 1:
        available = {"train": next(iter(available.values()))}
    splits = {
        split: available[alias]
        for split, aliases in SPLIT_NAMES.items()
        for alias in aliases
        if alias in available
    }
    if "train" not in splits:
        raise ValueError(
            f"The dataset has the splits {sorted(available)}, expected one that is called 'train'."
        )
    return splits


def select_columns(
    splits: Mapping[str, Dataset],
    contents: Sequence[Content],
    *,
    input_column: str | None,
    label_column: str,
) -> dict[str, Dataset]:
    """Picks the columns of the contents and the label, and calls them so.

    Args:
        splits: The sets.
        contents: What is read; each from the column of its own name.
        input_column: Of one content: the column that it is read from instead.
        label_column: The column of the labels.

    Raises:
        ValueError: A split lacks a column, or `input_column` is given for several contents.
    """
    sources = _sources(contents, input_column)
    if label_column in sources:
        raise ValueError(
            f"The {sources[label_column].noun} and their labels cannot both be in the column {label_column!r}. Choose "
            "input_column and label_column."
        )
    for split, rows in splits.items():
        _check_columns(split, rows, {**dict.fromkeys(sources, "input_column"), label_column: "label_column"})
    return {
        split: typed_columns(split, rows, sources, {label_column: LABEL}, advice=_ADVICE)
        for split, rows in splits.items()
    }


def select_contents(
    splits: Mapping[str, Dataset], contents: Sequence[Content], *, input_column: str | None
) -> dict[str, Dataset]:
    """Picks the columns of the contents, of data without labels, and calls them so.

    Args:
        splits: As `select_columns`.
        contents: As `select_columns`.
        input_column: As `select_columns`.

    Raises:
        ValueError: As `select_columns`.
    """
    sources = _sources(contents, input_column)
    for split, rows in splits.items():
        _check_columns(split, rows, dict.fromkeys(sources, "input_column"))
    return {split: typed_columns(split, rows, sources, advice=_ADVICE) for split, rows in splits.items()}


def _sources(contents: Sequence[Content], input_column: str | None) -> dict[str, Content]:
    """The contents by the column that each is read from."""
    if input_column is not None and len(contents) > 1:
        raise ValueError(
            f"input_column is {input_column!r}, but several columns are read: "
            f"{', '.join(one.column for one in contents)}. Rename the columns of the data instead."
        )
    return {input_column or content.column: content for content in contents}


def _check_columns(split: str, rows: Dataset, options: Mapping[str, str]) -> None:
    for column, option in options.items():
        if column not in rows.column_names:
            raise ValueError(
                f"The {split} split has no column {column!r}, it has {rows.column_names}. "
                f"Name one of these with {option}."
            )


def typed_columns(
    split: str,
    rows: Dataset,
    sources: Mapping[str, Content],
    others: Mapping[str, str] | None = None,
    *,
    advice: str = "",
) -> Dataset:
    """Returns rows whose columns are called and typed as the contents say, and some that are called otherwise.

    Args:
        split: What messages call the rows.
        rows: The rows, with all these columns.
        sources: The contents by the column that each is read from.
        others: New names of further columns that are kept, by their old ones.
        advice: What a message says to do, with a space before it.

    Raises:
        ValueError: A column does not hold what its content says.
    """
    names = {**{source: content.column for source, content in sources.items()}, **(others or {})}
    rows = rows.with_format(None).select_columns([*names]).rename_columns(names)
    for source, content in sources.items():
        try:
            rows = content.in_column(rows, content.column)
        except (TypeError, ValueError, NotImplementedError) as error:  # PyArrow's errors are one of these
            raise ValueError(
                f"The column {source!r} of the {split} split holds no {content.noun}, it is of the type "
                f"{rows.features[content.column]}.{advice}"
            ) from error
    return rows


def encode_labels(splits: Mapping[str, Dataset], *, label_column: str, noun: str) -> dict[str, Dataset]:
    """Turns labels into class indices; test and validation sets that are published without labels are left out.

    Raises:
        ValueError: The labels are neither names nor indices, or some are missing.
    """
    datasets = require("datasets", extra="train")
    feature = splits["train"].features[LABEL]
    is_value = isinstance(feature, datasets.Value) and re.match("u?int|(large_)?string|bool", feature.dtype)
    if not is_value and not isinstance(feature, datasets.ClassLabel):
        raise ValueError(
            f"The labels in column {label_column!r} are of the type {feature}, expected class names or indices. "
            "Name another column with label_column."
        )
    labels = {split: list(rows[LABEL][:]) for split, rows in splits.items()}
    no_label = {None, -1}
    labels = {
        split: values for split, values in labels.items() if split == "train" or not set(values) <= no_label
    }
    for split, values in labels.items():
        if _kind(splits[split].features[LABEL]) != _kind(feature):
            raise ValueError(
                f"The labels in column {label_column!r} are {splits[split].features[LABEL]} in the {split} split, but "
                f"{feature} in the train split. Give all splits the same classes in the same order."
            )
        if missing := sum(value in no_label for value in values):
            raise ValueError(
                f"{missing} {noun} of the {split} split have no label. Take them out of the dataset."
            )
    if isinstance(feature, datasets.ClassLabel):
        return {split: splits[split] for split in labels}
    classes = sorted(set().union(*labels.values()))
    index = {value: number for number, value in enumerate(classes)}
    target = datasets.ClassLabel(names=[str(value) for value in classes])
    return {
        split: splits[split]
        .remove_columns(LABEL)
        .add_column(LABEL, [index[value] for value in values], feature=target)
        for split, values in labels.items()
    }


def _kind(feature: Any) -> Any:
    """Returns what the labels of several splits must have in common to mean the same."""
    if isinstance(feature, require("datasets", extra="train").ClassLabel):
        return tuple(feature.names)
    return "text" if "string" in str(feature.dtype) else "numbers"
