from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from perceiver_io.data import ByteWindows, Splits, byte_windows, read_texts
from perceiver_io.data.settings import DataSettings


def load(dataset: object, documents: list[bytes] | None = None, **settings: Any) -> Splits:
    embedded = {} if documents is None else {"embedded": lambda: documents}
    return read_texts(
        DataSettings(dataset=str(dataset), **settings), cut=byte_windows(4), seed=0, embedded=embedded
    )


def texts(rows: Any) -> list[bytes]:
    return [window.tobytes()[:4] for window in rows]  # training windows come with a margin


def numbered(count: int, start: int = 0) -> list[bytes]:
    """Documents of one window each."""
    return [f"{number:04d}".encode() for number in range(start, start + count)]


def write(folder: Path, documents: list[bytes]) -> None:
    folder.mkdir(parents=True)
    for document in documents:
        (folder / f"{document.decode()}.txt").write_bytes(document)


def test_windows_lie_side_by_side_and_end_where_the_document_ends() -> None:
    windows = ByteWindows([b"abcdefghij", b"", b"xy"], 4)
    assert texts(windows) == [b"abcd", b"efgh", b"ghij", b"xy"]


@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_many_documents_are_split_by_document(fraction: float) -> None:
    data = load("embedded", numbered(40), validation_fraction=fraction, test_fraction=0.2)
    parts = [texts(rows) for rows in (data.train, data.validation, data.test) if rows is not None]
    assert sorted(one for part in parts for one in part) == numbered(40)
    assert [len(part) for part in parts] == ([32, 8] if fraction == 0 else [24, 8, 8])


def test_a_book_is_cut_by_place() -> None:
    book = bytes(range(65, 85))
    data = load("embedded", [book], validation_fraction=0.25, test_fraction=0.2)
    assert texts(data.train) == [book[:4], book[4:8], book[8:12]]
    assert texts(data.validation) == [book[12:16]]
    assert texts(data.test) == [book[16:]]


def test_own_validation_texts_cost_no_training_texts(tmp_path: Path) -> None:
    write(tmp_path / "train", numbered(40))
    write(tmp_path / "validation", numbered(3, start=100))
    data = load(tmp_path, validation_fraction=0.25, test_fraction=0.2)
    assert texts(data.validation) == numbered(3, start=100)
    assert sorted(texts(data.train) + texts(data.test)) == numbered(40)


def test_beside_own_test_texts_whole_documents_are_validated_on(tmp_path: Path) -> None:
    write(tmp_path / "train", numbered(40))
    write(tmp_path / "test", numbered(3, start=100))
    data = load(tmp_path, validation_fraction=0.25)
    assert texts(data.test) == numbered(3, start=100)
    assert sorted(texts(data.train) + texts(data.validation)) == numbered(40)
    assert {len(window) for window in texts(data.train)} == {4}


def test_a_table_has_a_column_of_texts(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict(
        {"text": [one.decode() for one in numbered(40)], "number": list(range(40))}
    )
    table.save_to_disk(tmp_path / "table")
    data = load(tmp_path / "table", validation_fraction=0.0)
    assert sorted(texts(data.train) + texts(data.test)) == numbered(40)
    with pytest.raises(ValueError, match=r"column 'number' of the train split is of the type .*int64"):
        load(tmp_path / "table", input_column="number")
    with pytest.raises(ValueError, match=r"no column 'words', it has \['text', 'number'\]"):
        load(tmp_path / "table", input_column="words")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no text to train on"),
        (b"ab", "too little text: nothing is left for test, validation"),
        (b"abc\xff", r"not UTF-8: .*byte 3"),
    ],
)
def test_bad_texts(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "book.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "book.txt")


def test_windows_are_bytes() -> None:
    assert ByteWindows([b"ab"], 4)[0].dtype == np.uint8
