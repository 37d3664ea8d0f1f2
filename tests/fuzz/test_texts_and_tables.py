"""Texts and tables of strangers: whatever a file holds, there is what it says, or a refusal that costs little."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.mutations import mutated
from fuzz.trials import Refused, cases, tried
from perceiver_io.adapters.table_processor import TableProcessor, is_missing
from perceiver_io.adapters.text_processor import ByteTextProcessor
from perceiver_io.data import byte_windows, read_texts
from perceiver_io.data.settings import DataSettings
from perceiver_io.media.texts import read_text, text_fault
from perceiver_io.tasks.modalities.table import ROWS, TableSettings
from perceiver_io.tasks.tabular import data as tabular
from perceiver_io.tasks.tabular.data import read_classes, read_numbers, read_rows

BUDGET = 32 * 2**20
TEXTS = ["", "Hello", "Grüße, 世界!\r\n\0 \ufeff", "\U0001f600" * 9, "a\u0301\u202e\x1b[2J"]


@pytest.fixture(autouse=True)
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_IO_MOST_DECODED_BYTES", str(BUDGET))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


CONTENTS = st.one_of(
    st.sampled_from(TEXTS).map(str.encode),
    st.text(max_size=40).map(str.encode),
    mutated([text.encode() for text in TEXTS[1:]]),
)


@cases(few=150)
@given(content=CONTENTS, special=st.booleans(), most=st.sampled_from([3, 7, 100]))
def test_a_file_is_its_text_or_refused(content: bytes, special: bool, most: int) -> None:
    """Of a text that is no UTF-8 the first wrong byte is named."""
    found = tried(read_text, content)
    try:
        expected = content.decode()
    except UnicodeDecodeError as error:
        assert isinstance(found, Refused)
        assert f"not UTF-8 at byte {error.start} (0x{content[error.start]:02x})" in str(found.error)
        assert text_fault(content) == found.error.reason
        return
    assert isinstance(found, Refused) if not expected else found == expected
    processor = ByteTextProcessor(max_length=most, special_tokens=special)
    ids = tried(processor.prepare, content)
    if not isinstance(ids, Refused):
        kept = content[: most - 2 * special]
        assert ids.tolist() == [4] * special + [byte + 6 for byte in kept] + [5] * special


@cases(few=60)
@given(
    documents=st.lists(CONTENTS, min_size=1, max_size=30),
    length=st.integers(1, 9),
    skip=st.booleans(),
    fractions=st.tuples(st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from([0.0, 0.1, 0.5])),
)
def test_a_folder_of_texts_is_split_without_loss(
    documents: list[bytes],
    length: int,
    skip: bool,
    fractions: tuple[float, float],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Windows of the three sets are all bytes of all texts, each once, and nothing else."""
    root = tmp_path_factory.mktemp("texts")
    for index, content in enumerate(documents):
        (root / f"{index:02}.txt").write_bytes(content)
    settings = DataSettings(
        dataset=str(root), test_fraction=fractions[0], validation_fraction=fractions[1], skip_bad_files=skip
    )
    found = tried(read_texts, settings, cut=byte_windows(length), seed=0, embedded={})
    good = []
    for content in documents:
        try:
            content.decode()
        except UnicodeDecodeError:
            continue
        good.append(content)
    if len(good) < len(documents) and not skip:
        assert isinstance(found, Refused)
    if not isinstance(found, Refused):
        sets = [one for one in (found.train, found.validation, found.test) if one is not None]
        assert all(0 < len(window) for one in sets for window in one)
        counted = np.zeros(256, int)
        for one in sets:
            for document in one.documents:
                counted += np.bincount(document, minlength=256)
        assert (
            counted.tolist() == np.bincount(np.frombuffer(b"".join(good), np.uint8), minlength=256).tolist()
        )


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(),
    st.sampled_from(
        [
            "",
            "a",
            "b",
            "1",
            "1e400",
            "NA",
            'é,"\n',
            "10" * 400,
            10**30,
            [1],
            {"a": 1},
            "\x1b[2J",
            "2020-01-01",
        ]
    ),
)
COLUMNS = ["x", "y", "label", "date", "1", ""]
TABLES = st.lists(st.dictionaries(st.sampled_from(COLUMNS), CELLS, min_size=1), min_size=1, max_size=8)


def written(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        plain = [
            {key: None if isinstance(cell, (list, dict)) else cell for key, cell in row.items()}
            for row in rows
        ]
        pandas.DataFrame(plain).astype("string").to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            names = list({key: None for row in rows for key in row})
            writer = csv.DictWriter(file, names, dialect="excel" if path.suffix == ".csv" else "excel-tab")
            writer.writeheader()
            writer.writerows(rows)


SUFFIXES = st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".parquet"])


@cases(few=40)
@given(rows=TABLES, suffix=SUFFIXES, change=st.data())
def test_a_file_is_a_table_or_refused(
    rows: list[dict[str, Any]],
    suffix: str,
    change: st.DataObject,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As many rows as were written, with the same columns; and a processor makes finite numbers of them."""
    path = folder / f"a{suffix}"
    try:
        written(path, rows)
    except (ValueError, OverflowError):  # what pandas does not write
        return
    content = path.read_bytes()
    changed = change.draw(st.one_of(st.just(content), mutated([content])))
    path.write_bytes(changed)
    found = tried(read_rows, path)
    assert capfd.readouterr() == ("", "")
    if isinstance(found, Refused):
        return
    assert len(found) and len({tuple(row) for row in found}) == 1
    if changed == content and suffix == ".jsonl":
        assert len(found) == len(rows) and set(found[0]) == {key for row in rows for key in row}
    for row in found:
        assert not any(isinstance(cell, float) and math.isnan(cell) for cell in row.values())
    for read in (read_classes, read_numbers):
        settings = DataSettings(
            dataset=str(path), label_column="label", test_fraction=0.3, skip_bad_files=True
        )
        splits = tried(read, settings, TableSettings(), embedded={}, seed=0)
        if isinstance(splits, Refused):
            continue
        values = [row[ROWS.name] for row in splits.train]
        processor = tried(TableProcessor.fitted, values)
        if not isinstance(processor, Refused):
            for value in values:
                numbers = tried(processor.prepare, value)
                if not isinstance(numbers, Refused):
                    assert numbers.dtype == torch.float32 and len(numbers) == len(processor.columns)
                    assert not numbers.isinf().any()
                    present = [not is_missing(value.get(column)) for column in processor.columns]
                    assert numbers.isnan().logical_not().tolist() == present


def _wide(suffix: str, width: int, height: int) -> bytes:
    """A table of so many columns and rows, of which there is hardly anything but the names and the number of them."""
    names = [f"c{index}" for index in range(width)]
    if suffix in (".csv", ".tsv"):
        return ("," if suffix == ".csv" else "\t").join(names).encode() + b"\n1" * height
    if suffix == ".parquet":
        file = io.BytesIO()
        pandas.DataFrame({"a": np.zeros(width * height)}).to_parquet(file)
        return file.getvalue()
    rows = [json.dumps({names[index % width]: 1}) for index in range(height)]
    return ("\n".join(rows) if suffix == ".jsonl" else f"[{','.join(rows)}]").encode()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_a_wide_table_of_short_rows_does_not_fill_the_memory(suffix: str, tmp_path: Path) -> None:
    """Half a megabyte of 20,000 columns and 20,000 rows stood for 400 million cells."""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(_wide(suffix, 20_000, 20_000) if suffix != ".parquet" else _wide(suffix, 1000, 1000))
    assert path.stat().st_size < 1_000_000
    found = tried(read_rows, path)
    assert isinstance(found, Refused)
    assert "too large: decoded, its cells would take" in str(found.error)
    path.write_bytes(_wide(suffix, 30, 10))
    assert len(read_rows(path)) == (300 if suffix == ".parquet" else 10)


def test_rows_of_more_cells_than_columns_are_refused(tmp_path: Path) -> None:
    """The first of them were taken for names of rows, so that all others stood in the wrong columns."""
    path = tmp_path / "a.csv"
    path.write_text("a,label\n1,2,yes\n3,4,no\n")
    found = tried(read_rows, path)
    assert isinstance(found, Refused)
    assert "its rows have more cells than its 2 columns" in str(found.error)


@pytest.mark.parametrize(
    "content",
    ["text,label\n" + "long " * 40_000 + ",1\nb,2\n", "  \ntext,label\na,1\nb,2\n", "text,label\r\na,1\r\n"],
)
def test_tables_that_pandas_reads_are_read(content: str, tmp_path: Path) -> None:
    """Cells beyond the csv module's limit and blank first lines were refused, lines of Windows counted twice."""
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode())
    assert list(read_rows(path)[0]) == ["text", "label"]
    assert _num_lines(b"a\r\n" * 5, tmp_path) == _num_lines(b"a\n" * 5, tmp_path) == 6


def _num_lines(content: bytes, folder: Path) -> int:
    path = folder / "lines.csv"
    path.write_bytes(content)
    return tabular._num_lines(path)


def test_messages_about_wide_tables_are_short(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(_wide(".csv", 3000, 9))
    settings = DataSettings(dataset=str(path), label_column="label")
    assert isinstance(tried(read_classes, settings, TableSettings(), embedded={}, seed=0), Refused)
    processor = TableProcessor.fitted([{f"c{index}": index for index in range(3000)}])
    assert isinstance(tried(processor.prepare, {f"d{index}": 0 for index in range(3000)}), Refused)
    assert isinstance(tried(processor.prepare, {"c1": None}), Refused)


@cases(few=60)
@given(
    content=mutated(
        [
            b'{"a": 1, "b": "x", "c": null, "d": [1, {"e": NaN}]}',
            b"[" * 60 + b"]" * 60,
            b'{"a": 1' + b"0" * 30 + b"}",
        ]
    )
)
@example(content=b'{"a": 1e39}')  # it became infinite
@example(content=b"[" * 200_000)
@example(content=b'{"a":' * 100_000)
@example(content=b'{"a": ' + b"1" * 10_000 + b"}")
def test_a_row_of_json_is_its_values_or_refused(content: bytes) -> None:
    found = tried(ROWS.content.decode, {"path": None, "bytes": content})
    fault = tried(ROWS.content.fault, content)
    if isinstance(found, Refused):
        assert isinstance(fault, str)
        return
    assert fault is None
    assert json.dumps(found) == json.dumps(json.loads(content)) and isinstance(found, dict)
    processor = TableProcessor(
        columns=("a", "b"), categories=(None, ("x", "y")), means=(0.0, 0.0), scales=(1.0, 1.0)
    )
    row = tried(processor.prepare, found)
    if not isinstance(row, Refused):
        assert len(row) == 2 and not row.isinf().any()
        assert is_missing(found.get("a")) or float(row[0]) == np.float32(found["a"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    """A device filled the memory, and a pipe was waited for."""
    os.mkfifo(tmp_path / "pipe")
    for source in ("/dev/zero", tmp_path / "pipe", {"path": "/dev/zero", "bytes": None}):
        found = tried(read_text, source)
        assert isinstance(found, Refused)
        assert "no file, but a device or a pipe" in str(found.error)
    for source in ("a\0b", tmp_path / "x\ny", tmp_path):
        assert isinstance(tried(read_text, source), Refused)
