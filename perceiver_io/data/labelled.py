"""The reader of labelled data: an embedded set, a folder by class, tables, or a dataset of the hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_io.data.bad_files import drop_bad_files
from perceiver_io.data.content import Content
from perceiver_io.data.settings import DataSettings
from perceiver_io.data.sources import (
    LABEL,
    LabelledRows,
    encode_labels,
    holds_tables,
    load_dataset,
    named_splits,
    nouns,
    read_class_folders,
    select_columns,
)
from perceiver_io.data.splits import Splits, hold_out_missing, split_rows

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["read_labelled"]


def read_labelled(
    settings: DataSettings,
    *contents: Content,
    embedded: Mapping[str, Callable[[], Dataset | LabelledRows]],
    seed: int = 0,
) -> Splits:
    """Reads what the settings name, and splits it.

    Splits that the source has are used as they are (those without labels are left out). A missing test set is taken
    out of the training set with a fixed seed, so that it is the same samples whatever the seed is; a missing
    validation set is taken out of what remains. Both have the classes in the same proportions as the whole.

    The files of a local source are all decoded once, so that a bad one is found before the training and not in the
    middle of it.

    Args:
        settings: Their `dataset` is the name of an embedded set, a folder of files by class (``<class>/<file>`` or
            ``{train,validation,test}/<class>/<file>``), a folder that `datasets.load_dataset` or
            `datasets.load_from_disk` reads, or the id of a dataset on the Hugging Face hub.
        *contents: What is read. A sample may lack some of several contents, but not all.
        embedded: Functions that make the sets that need no download, by name.
        seed: Decides which samples are validated on, nothing else.

    Returns:
        The three sets, with the columns of the contents and ``label`` (`datasets.ClassLabel`).

    Raises:
        ValueError: There is no dataset, it is of no form named above, has not the columns, is empty, has one class,
            has a missing or corrupt file, has too few samples to split, or tests on classes that it does not train on.
    """
    names, noun = ", ".join(sorted(embedded)), nouns(contents)
    forms = (
        f"Choose {f'an embedded one ({names}), ' if names else ''}an existing folder (of {noun} by class, or "
        "of Parquet files), or the id of a dataset on the Hugging Face hub."
    )
    if settings.dataset is None:
        raise ValueError(f"There is no dataset. {forms}")
    name, path = settings.dataset, Path(settings.dataset).expanduser()
    is_folder = bool(name) and name not in embedded and path.is_dir()
    if name in embedded:
        made = embedded[name]()
        if isinstance(made, LabelledRows):
            labels = [row[LABEL] for row in made.rows]
            return split_rows(
                made.rows,
                settings,
                seed=seed,
                labels=labels,
                class_names=made.class_names,
                groups=made.groups,
            )
        splits = {"train": made}
    elif is_folder and not holds_tables(path):
        splits = read_class_folders(path, contents)
    else:
        splits = select_columns(
            named_splits(load_dataset(name, forms=forms)),
            contents,
            input_column=settings.input_column,
            label_column=settings.label_column,
        )
        splits = encode_labels(splits, label_column=settings.label_column, noun=noun)
    if is_folder:
        splits = drop_bad_files(splits, contents, skip=settings.skip_bad_files)

    class_names = tuple(splits["train"].features[LABEL].names)
    num_classes = len(set(_labels(splits["train"])))
    if num_classes < 2:
        raise ValueError(
            f"{name!r:.200} has {len(splits['train'])} training {noun} of {num_classes} classes, "
            f"expected {noun} of two classes at least."
        )
    _check_known_classes(splits)
    train = splits["train"]
    found = hold_out_missing(
        len(train),
        settings,
        seed=seed,
        present=splits,
        labels=_labels(train),
        class_names=class_names,
    )
    splits |= {split: train.select(indices) for split, indices in found.items()}
    _check_known_classes(splits)
    return Splits(
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits["test"],
        class_names=class_names,
    )


def _labels(rows: Dataset) -> list[Any]:
    return list(rows[LABEL][:])


def _check_known_classes(splits: Mapping[str, Dataset]) -> None:
    names = splits["train"].features[LABEL].names
    known = set(_labels(splits["train"]))
    for split, rows in splits.items():
        if strangers := sorted(set(_labels(rows)) - known):
            raise ValueError(
                f"The {split} set has the classes {[names[index] for index in strangers]}, of which the training "
                "set has no sample. Add some to the training set, or hold out less."
            )
