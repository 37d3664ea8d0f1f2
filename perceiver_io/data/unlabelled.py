"""The readers of data whose labels nobody needs: any files, or data with labels, which are passed over or kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from perceiver_io.data.bad_files import drop_bad_files
from perceiver_io.data.content import Content
from perceiver_io.data.labelled import read_labelled
from perceiver_io.data.settings import DataSettings
from perceiver_io.data.sources import (
    LabelledRows,
    files_of,
    holds_tables,
    load_dataset,
    named_splits,
    nouns,
    samples_of,
    select_contents,
    split_folders,
    subfolders,
)
from perceiver_io.data.splits import Splits, hold_out_missing
from perceiver_io.extras import require

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["read_labelled_or_not", "read_unlabelled"]

_LEAST = 3  # files of a class, of which one is held out twice


def read_unlabelled(
    settings: DataSettings,
    *contents: Content,
    embedded: Mapping[str, Callable[[], Dataset | LabelledRows]],
    seed: int = 0,
) -> Splits:
    """Reads what the settings name, and splits it.

    Where there are labels, the sets are those of `read_labelled`: what a classifier will be tested on is not trained on
    here. Those are an embedded set, tables with the column `label_column`, and folders that are named after classes.

    Args:
        settings: Their `dataset` is as that of `read_labelled`; or a folder with files, in it or anywhere below it, or
            ``{train,validation,test}`` with such.
        *contents: What is read. A sample may lack some of several contents, but not all.
        embedded: Functions that make the sets that need no download, by name.
        seed: Decides which samples are validated on, nothing else.

    Returns:
        The three sets, with the columns of the contents; there may be others.

    Raises:
        ValueError: There is no such data, it is empty, or has a missing or corrupt file.
    """
    return replace(read_labelled_or_not(settings, *contents, embedded=embedded, seed=seed), class_names=())


def read_labelled_or_not(
    settings: DataSettings,
    *contents: Content,
    embedded: Mapping[str, Callable[[], Dataset | LabelledRows]],
    seed: int = 0,
) -> Splits:
    """Reads what the settings name, and splits it; where there are labels, it is what `read_labelled` returns.

    Args:
        settings: As `read_unlabelled`.
        *contents: As `read_unlabelled`.
        embedded: As `read_unlabelled`.
        seed: As `read_unlabelled`.

    Returns:
        The three sets, with the columns of the contents; with ``label`` and with `class_names` where there are labels.

    Raises:
        ValueError: As `read_unlabelled`.
    """
    names, noun = ", ".join(sorted(embedded)), nouns(contents)
    forms = (
        f"Choose {f'an embedded one ({names}), ' if names else ''}an existing folder of {noun}, or the id of a dataset "
        "on the Hugging Face hub."
    )
    if settings.dataset is None:
        raise ValueError(f"There is no dataset. {forms}")
    name, path = settings.dataset, Path(settings.dataset).expanduser()
    is_folder = bool(name) and name not in embedded and path.is_dir()
    if is_folder and not holds_tables(path):
        folders = split_folders(path) or {"train": path}
        if _has_classes(folders, contents):
            return read_labelled(settings, *contents, embedded=embedded, seed=seed)
        splits = {split: _samples(folder, contents) for split, folder in folders.items()}
        if "train" not in splits:
            raise ValueError(
                f"{path} has the splits {sorted(splits)}, expected a folder 'train' beside them."
            )
    elif name in embedded:
        return read_labelled(settings, *contents, embedded=embedded, seed=seed)
    else:
        splits = named_splits(load_dataset(name, forms=forms))
        if settings.label_column in splits["train"].column_names:
            return read_labelled(settings, *contents, embedded=embedded, seed=seed)
        splits = select_contents(splits, contents, input_column=settings.input_column)
    if is_folder:
        splits = drop_bad_files(splits, contents, skip=settings.skip_bad_files)
    train = splits["train"]
    held = hold_out_missing(len(train), settings, seed=seed, present=splits)
    splits |= {split: train.select(indices) for split, indices in held.items()}
    return Splits(train=splits["train"], validation=splits.get("validation"), test=splits["test"])


def _has_classes(folders: Mapping[str, Path], contents: Sequence[Content]) -> bool:
    """Whether the files are in folders that may be classes: two or more of some files each, and no file beside them."""
    train = folders.get("train")
    if train is None:
        return False
    suffixes = set().union(*(one.suffixes() for one in contents))
    if any(one.is_file() and one.suffix.lower() in suffixes for one in train.iterdir()):
        return False
    classes = subfolders(train)
    return len(classes) > 1 and all(len(files_of(one, suffixes)) >= _LEAST for one in classes)


def _samples(folder: Path, contents: Sequence[Content]) -> Dataset:
    datasets = require("datasets", extra="train")
    samples = samples_of(folder, contents)
    if not samples:
        raise ValueError(f"{folder} has no {nouns(contents)} in it. Fill it, or take it away.")
    columns = {one.column: [sample.get(one) for sample in samples] for one in contents}
    features = datasets.Features({one.column: one.feature() for one in contents})
    rows: Dataset = datasets.Dataset.from_dict(columns, features=features)
    return rows
