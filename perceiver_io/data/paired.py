"""The reader of inputs with a target as large as they are, such as images and their masks.

An embedded set, two folders whose files are called alike, tables, or a dataset of the hub.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_io.data.bad_files import drop_bad_files
from perceiver_io.data.content import Content
from perceiver_io.data.settings import DataSettings
from perceiver_io.data.sources import (
    SPLIT_NAMES,
    LabelledRows,
    files_of,
    holds_tables,
    load_dataset,
    named_splits,
    split_folders,
    subfolders,
    typed_columns,
)
from perceiver_io.data.splits import Splits, hold_out_missing, split_rows
from perceiver_io.extras import require

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["read_paired"]

_NUM_FILES_NAMED = 10


def read_paired(
    settings: DataSettings,
    content: Content,
    target: Content,
    *,
    folders: Mapping[str, Sequence[str]],
    embedded: Mapping[str, Callable[[], LabelledRows]],
    seed: int = 0,
    within: Content | None = None,
) -> Splits:
    """Reads what the settings name, and splits it.

    A folder holds the files of inputs and those of targets in two folders, side by side, in each of its sets or with
    the sets in each of them: ``train/images/7.png`` and ``train/masks/7.png``, ``images/train/7.png`` and
    ``masks/train/7.png``, or without sets. Files that are called alike but for the ending belong together. Where files
    of inputs may hold their targets, a folder of such files alone is read too: ``train/7.ply``, or without sets.

    Args:
        settings: What to read, and how much to hold out; a recipe is such settings.
        content: The inputs.
        target: The targets.
        folders: What the folder of each is called, by column: {"image": ("images", "image"), …}.
        embedded: Functions that make the sets that need no file, by name.
        seed: Decides which rows are validated on, where there is no validation set.
        within: The target as it is in a file of inputs, under the same column; None where it never is. What a row holds
            of both is the same then.

    Returns:
        Three sets, whose rows have the columns of `content` and of `target`; class names are those of embedded sets.

    Raises:
        ValueError: There is no such data, a file lacks its partner or is corrupt.
    """
    names = ", ".join(sorted(embedded))
    forms = (
        f"Choose {f'an embedded one ({names}), ' if names else ''}an existing folder (of {content.noun} and "
        f"{target.noun} in two folders, or of Parquet files), or the id of a dataset on the Hugging Face hub."
    )
    if settings.dataset is None:
        raise ValueError(f"There is no dataset. {forms}")
    name, path = settings.dataset, Path(settings.dataset).expanduser()
    if name in embedded:
        made = embedded[name]()
        return split_rows(made.rows, settings, seed=seed, class_names=made.class_names, groups=made.groups)
    is_folder = bool(name) and path.is_dir()
    if is_folder and not holds_tables(path):
        found = _sets(path, content, target, folders, within)
        if within is not None and any(inputs == targets for inputs, targets in found.values()):
            target = within
        splits = {split: _pairs(*both, content, target) for split, both in found.items()}
    else:
        columns = {settings.input_column or content.column: content, settings.label_column: target}
        splits = _chosen(named_splits(load_dataset(name, forms=forms)), columns)
    if is_folder:
        splits = drop_bad_files(splits, [content, target], skip=settings.skip_bad_files)
    train = splits["train"]
    held = hold_out_missing(len(train), settings, seed=seed, present=splits)
    splits |= {split: train.select(indices) for split, indices in held.items()}
    return Splits(train=splits["train"], validation=splits.get("validation"), test=splits["test"])


def _sets(
    root: Path,
    content: Content,
    target: Content,
    folders: Mapping[str, Sequence[str]],
    within: Content | None,
) -> dict[str, tuple[Path, Path]]:
    """The two folders of each set that there is; twice the same where files of inputs hold their targets."""
    found = {split: _both(folder, content, target, folders) for split, folder in split_folders(root).items()}
    sets = {split: both for split, both in found.items() if both is not None}
    if not sets and (both := _both(root, content, target, folders)) is not None:
        inner = [split_folders(folder) for folder in both]
        if set(inner[0]) != set(inner[1]):
            raise ValueError(
                f"{both[0]} has the sets {sorted(inner[0])}, but {both[1]} has {sorted(inner[1])}. Give both the same."
            )
        sets = {split: (inner[0][split], inner[1][split]) for split in SPLIT_NAMES if split in inner[0]}
        sets = sets or {"train": both}
    if not sets and within is not None:
        alone = split_folders(root) or ({"train": root} if files_of(root, content.suffixes()) else {})
        sets = {split: (folder, folder) for split, folder in alone.items()}
    if "train" not in sets:
        wanted = f"{folders[content.column][0]}/<file> and {folders[target.column][0]}/<file>"
        raise ValueError(
            f"{root} has the folders {[one.name for one in subfolders(root)]}, expected {wanted}, or such folders in "
            "{train,validation,test}/."
        )
    return sets


def _both(
    folder: Path, content: Content, target: Content, folders: Mapping[str, Sequence[str]]
) -> tuple[Path, Path] | None:
    named = {one.name.lower(): one for one in subfolders(folder)}
    pair = [
        next((named[name] for name in folders[one.column] if name in named), None)
        for one in (content, target)
    ]
    return None if pair[0] is None or pair[1] is None else (pair[0], pair[1])


def _pairs(inputs: Path, targets: Path, content: Content, target: Content) -> Dataset:
    """A row for each pair of files that are called alike."""
    datasets = require("datasets", extra="train")
    named = [_by_name(inputs, content), _by_name(targets, target)]
    for mine, other, lacking, where in ((0, 1, target, targets), (1, 0, content, inputs)):
        if alone := sorted(set(named[mine]) - set(named[other])):
            more = f" and {len(alone) - _NUM_FILES_NAMED} more" if len(alone) > _NUM_FILES_NAMED else ""
            raise ValueError(
                f"{where} has no {lacking.noun} for {', '.join(alone[:_NUM_FILES_NAMED])}{more}: files that belong "
                "together are called alike but for the ending. Add them, or take their partners away."
            )
    if not named[0]:
        raise ValueError(f"{inputs} has no {content.noun} in it. Fill it, or take it away.")
    order = sorted(named[0])
    columns = {
        one.column: [one.stored(files[name]) for name in order]
        for one, files in zip((content, target), named, strict=True)
    }
    features = datasets.Features({one.column: one.feature() for one in (content, target)})
    rows: Dataset = datasets.Dataset.from_dict(columns, features=features)
    return rows


def _by_name(folder: Path, content: Content) -> dict[str, str]:
    named: dict[str, str] = {}
    for file in files_of(folder, content.suffixes()):
        name = os.path.splitext(os.path.relpath(file, folder))[0]
        if name in named:
            raise ValueError(f"{folder} has several {content.noun} that are called {name!r}. Rename them.")
        named[name] = file
    return named


def _chosen(splits: Mapping[str, Any], columns: Mapping[str, Content]) -> dict[str, Any]:
    """The two columns of each split, called and typed as the contents say."""
    if len(columns) < 2:
        raise ValueError(f"Inputs and targets cannot both be in the column {next(iter(columns))!r}.")
    chosen = {}
    for split, rows in splits.items():
        for column, content in columns.items():
            if column not in rows.column_names:
                raise ValueError(
                    f"The {split} split has no column {column!r} of {content.noun}, it has {rows.column_names}. Name "
                    "the columns with input_column and label_column."
                )
        chosen[split] = typed_columns(split, rows, columns)
    return chosen
