"""Texts as bytes: an embedded corpus, a file, a folder, tables or a dataset of the hub, split by document."""

from __future__ import annotations

import logging
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.data.settings import DataSettings
from perceiver_io.data.sources import files_of, holds_tables, load_dataset, named_splits, split_folders
from perceiver_io.data.splits import TEST_SPLIT_SEED, Splits, hold_out
from perceiver_io.extras import require

__all__ = ["ByteWindows", "byte_windows", "read_texts", "standard_library"]

logger = logging.getLogger(__name__)

TEXT = "text"
Cut = Callable[[Sequence[bytes], bool], Sequence[Any]]
_SUFFIXES = {
    ".txt",
    ".md",
    ".rst",
    ".py",
    ".html",
    ".xml",
    ".json",
    ".jsonl",
    ".csv",
    ".tsv",
    ".tex",
    ".abc",
    ".log",
}
# Fewer documents than that are cut by place instead: their beginnings are trained on, and their ends tested on.
_MIN_DOCUMENTS = 20


class ByteWindows(Sequence[NDArray[np.uint8]]):
    """Windows of documents, side by side; the last of a document ends where it ends.

    Args:
        documents: The documents' bytes.
        length: Bytes in a window; a shorter document is one window.
        margin: How many of the bytes that follow a window come with it, so that training may move it at random.
    """

    def __init__(self, documents: Sequence[bytes], length: int, *, margin: int = 0) -> None:
        self.documents = [np.frombuffer(document, np.uint8) for document in documents if document]
        self.length = length
        self.margin = margin
        self.places = [
            (number, min(start, max(len(document) - length, 0)))
            for number, document in enumerate(self.documents)
            for start in range(0, len(document), length)
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        number, start = self.places[index]
        return self.documents[number][start : start + self.length + self.margin]


def byte_windows(length: int) -> Cut:
    """Returns what cuts documents in `ByteWindows`, which training may move at random."""
    return lambda documents, train: ByteWindows(documents, length, margin=length - 1 if train else 0)


def standard_library() -> list[bytes]:
    """Returns the source of Python's own modules that are single files, sorted by name: a corpus without a download."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return _read([str(file) for file in files], skip=True)


def read_texts(
    settings: DataSettings,
    *,
    cut: Cut,
    seed: int,
    embedded: Mapping[str, Callable[[], Sequence[bytes]]],
) -> Splits:
    """Reads the texts that the settings name, and splits them by document, then cuts them in windows.

    Sets that the source has are used as they are; a missing one is held out of the training texts. A few documents,
    such as one book, are cut by place: their ends are tested on.

    Args:
        settings: Their `dataset` is the name of an embedded corpus, a text file, a folder of text files (or of
            ``train``, ``validation`` and ``test`` with text files), a folder that `datasets` reads, or the id of a
            dataset on the Hugging Face hub; tables have a column "text", or `input_column`.
        cut: Makes windows of the documents of a set; it is told whether they are to be trained on.
        seed: Decides which documents are validated on.
        embedded: Functions that return the documents of a corpus that needs no download, by name.

    Returns:
        Three sets of windows.

    Raises:
        ValueError: There is no such text, it is empty, too short to split, not UTF-8, or cannot be read.
    """
    forms = (
        f"Choose an embedded one ({', '.join(sorted(embedded))}), a text file, a folder of text files, or the id of a "
        "dataset on the Hugging Face hub."
    )
    name = settings.dataset
    if not name:
        raise ValueError(f"There is no dataset. {forms}")
    path = Path(name).expanduser()
    documents: dict[str, Sequence[bytes]]
    if name in embedded:
        documents = {"train": embedded[name]()}
    elif path.is_file():
        documents = {"train": _read([str(path)], skip=False)}
    elif path.is_dir() and not holds_tables(path):
        folders = split_folders(path) or {"train": path}
        documents = {
            split: _read(files_of(folder, _SUFFIXES), skip=settings.skip_bad_files)
            for split, folder in folders.items()
        }
    else:
        column = settings.input_column or TEXT
        documents = {}
        for split, rows in named_splits(load_dataset(name, forms=forms)).items():
            if column not in rows.column_names:
                raise ValueError(
                    f"The {split} split has no column {column!r}, it has {rows.column_names}. Name one of these with "
                    "input_column."
                )
            feature = rows.features[column]
            is_text = isinstance(feature, require("datasets", extra="train").Value)
            if not is_text or feature.dtype not in ("string", "large_string"):
                raise ValueError(
                    f"The column {column!r} of the {split} split is of the type {feature}, expected texts. Name "
                    "another column with input_column."
                )
            documents[split] = [(text or "").encode() for text in rows[column]]
    sizes = {split: sum(map(len, texts)) for split, texts in documents.items()}
    if "train" not in sizes or min(sizes.values()) < 2:
        raise ValueError(
            f"{name!r:.200} has no text to train on, or an empty set: bytes in each set: {sizes}. {forms}"
        )
    return _split(documents, settings, cut=cut, seed=seed)


def _split(
    documents: Mapping[str, Sequence[bytes]], settings: DataSettings, *, cut: Cut, seed: int
) -> Splits:
    parts = {split: [text for text in texts if text] for split, texts in documents.items()}
    hold = _documents_held_out if len(parts["train"]) >= _MIN_DOCUMENTS else _ends_held_out
    if "test" not in parts:
        parts["train"], parts["test"] = hold(parts["train"], settings.test_fraction, TEST_SPLIT_SEED)
    if "validation" not in parts and settings.validation_fraction:
        parts["train"], parts["validation"] = hold(parts["train"], settings.validation_fraction, seed)
    if settings.train_fraction < 1:
        _, parts["train"] = hold(parts["train"], settings.train_fraction, seed)
    windows = {split: cut(texts, split == "train") for split, texts in parts.items()}
    if empty := sorted(split for split, rows in windows.items() if not len(rows)):
        raise ValueError(f"There is too little text: nothing is left for {', '.join(empty)}. Add text.")
    return Splits(train=windows["train"], validation=windows.get("validation"), test=windows["test"])


def _documents_held_out(
    documents: Sequence[bytes], fraction: float, seed: int
) -> tuple[list[bytes], list[bytes]]:
    kept, held = hold_out(len(documents), fraction, seed)
    return [documents[index] for index in kept], [documents[index] for index in held]


def _ends_held_out(documents: Sequence[bytes], fraction: float, _: int) -> tuple[list[bytes], list[bytes]]:
    edges = [len(document) - round(fraction * len(document)) for document in documents]
    pairs = list(zip(documents, edges, strict=True))
    return [document[:edge] for document, edge in pairs], [document[edge:] for document, edge in pairs]


def _read(files: Sequence[str], *, skip: bool) -> list[bytes]:
    documents, bad = [], []
    for file in files:
        try:
            content = Path(file).read_bytes()
            content.decode()
        except OSError as error:
            bad.append(f"{file} ({error.strerror})")
            continue
        except UnicodeDecodeError as error:
            bad.append(f"{file} (byte {error.start})")
            continue
        documents.append(content)
    if bad and not skip:
        raise ValueError(
            f"{len(bad)} of {len(files)} texts cannot be read, or are not UTF-8: {', '.join(bad[:5])}. Convert them, "
            "or set skip_bad_files to go on without them."
        )
    if bad:
        logger.warning(
            "Skipped: %d of %d texts cannot be read, or are not UTF-8: %s.",
            len(bad),
            len(files),
            ", ".join(bad[:5]),
        )
    return documents
