"""Tables of rows and labels: embedded ones, files, folders, the hub; and how they are split."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_io.adapters.table_processor import is_missing
from perceiver_io.budget import most_decoded_bytes
from perceiver_io.data import Splits
from perceiver_io.data.settings import DataSettings
from perceiver_io.data.sources import load_dataset, named_splits
from perceiver_io.data.splits import hold_out_missing
from perceiver_io.extras import require
from perceiver_io.input_tools import listed
from perceiver_io.media.source import UnreadableError, check_decoded, unreadable
from perceiver_io.printable import listing, shown
from perceiver_io.tasks.modalities.table import ROWS, TableSettings

__all__ = [
    "CLASSIFICATION_SETS",
    "REGRESSION_SETS",
    "TABLE_SUFFIXES",
    "read_classes",
    "read_numbers",
    "read_rows",
]

Rows = Sequence[Mapping[str, Any]]

_READERS = {
    ".csv": "read_csv",
    ".tsv": "read_table",
    ".parquet": "read_parquet",
    ".json": "read_json",
    ".jsonl": "read_json",
}
TABLE_SUFFIXES = set(_READERS)
# Types are those of whole columns, and not of pieces of them.
_OPTIONS: dict[str, dict[str, Any]] = {
    ".csv": {"low_memory": False},
    ".tsv": {"low_memory": False},
    ".jsonl": {"lines": True},
}
_CELL_BYTES = 64  # of a cell in a row that is a dictionary

_LABEL = "label"
_NUM_MADE_UP = 4000


def breast_cancer() -> Rows:
    """Returns scikit-learn's 569 tumours: 30 measures of cell nuclei, malignant or benign."""
    return _of_sklearn("load_breast_cancer")


def wine() -> Rows:
    """Returns scikit-learn's 178 wines: 13 measures, three cultivars."""
    return _of_sklearn("load_wine")


def diabetes() -> Rows:
    """Returns scikit-learn's 442 patients: ten measures, and how a disease went on within a year."""
    return _of_sklearn("load_diabetes")


def friedman() -> Rows:
    """Returns 4,000 made-up rows (Friedman, 1991): ten numbers and a site, a tenth of the cells missing.

    y = 10 sin(pi x1 x2) + 20 (x3 - 0.5)^2 + 10 x4 + 5 x5 + a shift by site + noise of deviation 1. The other five
    numbers say nothing.
    """
    x, y = require("sklearn.datasets", extra="train").make_friedman1(
        n_samples=_NUM_MADE_UP, n_features=10, noise=1.0, random_state=0
    )
    rng = np.random.default_rng(0)
    sites = {"north": -3.0, "east": -1.0, "south": 1.0, "west": 3.0}
    rows = []
    for numbers, target in zip(x.tolist(), y.tolist(), strict=True):
        site = str(rng.choice(list(sites)))
        row = {**{f"x{index + 1}": number for index, number in enumerate(numbers)}, "site": site}
        present = rng.random(len(row)) >= 0.1
        cells = {
            column: cell if kept else None for (column, cell), kept in zip(row.items(), present, strict=True)
        }
        rows.append({**cells, _LABEL: target + sites[site]})
    return rows


CLASSIFICATION_SETS: dict[str, Callable[[], Rows]] = {"breast-cancer": breast_cancer, "wine": wine}
REGRESSION_SETS: dict[str, Callable[[], Rows]] = {"diabetes": diabetes, "friedman": friedman}


def read_classes(
    settings: DataSettings, table: TableSettings, *, embedded: Mapping[str, Callable[[], Rows]], seed: int
) -> Splits:
    """Reads a table whose label is a class.

    Args:
        settings: Their `dataset` is the name of an embedded table, a file (CSV, TSV, Parquet, JSON), a folder of such
            files, called train, validation and test if there are several, or the id of a dataset on the hub.
        table: Which columns are used.
        embedded: Functions that make the tables that need no download, by name.
        seed: Decides which rows are validated on.

    Returns:
        Three lists of rows, each with `table`, the values by column, and `label`, a class index.

    Raises:
        ValueError: There is no such table, it lacks a column, a label is missing, or there are too few rows.
    """
    sets = _sets(settings, embedded)
    column = settings.label_column
    values = {split: _column(rows, column, split) for split, rows in sets.items()}
    try:
        classes = sorted(set(values["train"]), key=lambda one: (isinstance(one, str), one))
    except TypeError as error:
        raise ValueError(f"The column {column!r} must hold names or numbers of classes: {error}.") from error
    if len(classes) < 2:
        raise ValueError(f"The column {column!r} has the class {classes[0]!r} alone, expected two or more.")
    for split, found in values.items():
        if strangers := sorted({str(one) for one in found if one not in classes}):
            raise ValueError(
                f"The {split} set has the classes {listing(strangers)}, of which there are no training rows."
            )
    index = {name: number for number, name in enumerate(classes)}
    labels = {split: [index[one] for one in found] for split, found in values.items()}
    names = tuple(_name(one) for one in classes)
    return _split(_rows(sets, settings, table, labels), settings, seed=seed, class_names=names)


def read_numbers(
    settings: DataSettings, table: TableSettings, *, embedded: Mapping[str, Callable[[], Rows]], seed: int
) -> Splits:
    """Reads a table whose label is a number; as `read_classes` otherwise.

    Raises:
        ValueError: As `read_classes`; or a label is no finite number.
    """
    sets = _sets(settings, embedded)
    column = settings.label_column
    labels = {}
    for split, rows in sets.items():
        values = _column(rows, column, split)
        try:
            labels[split] = [float(value) for value in values]
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"The column {column!r} of the {split} set must hold numbers: {shown(str(error), most=300)}."
            ) from error
        if not all(map(math.isfinite, labels[split])):
            raise ValueError(f"The column {column!r} of the {split} set holds infinities.")
    return _split(_rows(sets, settings, table, labels), settings, seed=seed)


def read_rows(file: str | Path) -> list[dict[str, Any]]:
    """Reads the rows of a file, with None for what is missing.

    Raises:
        ValueError: There is no such file, it is no table or empty.
    """
    path = Path(file).expanduser()
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{file} is no table that can be read: expected {', '.join(sorted(_READERS))}.")
    if not path.is_file():
        raise ValueError(f"{file} is missing.")
    pandas = require("pandas", extra="train")
    most_decoded_bytes()  # what is wrong with the setting is not wrong with the file
    try:
        # A short row of a wide table stands for many cells.
        check_decoded(path, _CELL_BYTES * _num_cells(path), "its cells")
        frame = getattr(pandas, reader)(path, **_OPTIONS.get(path.suffix.lower(), {}))
    except UnreadableError:
        raise
    except Exception as error:  # each reader has errors of its own
        reason = " ".join(str(error).split()).rstrip(".")
        raise unreadable(path, f"no table: {reason:.200}") from error
    if not len(frame):
        raise ValueError(f"{file} has no rows.")
    frame.columns = [str(column) for column in frame.columns]
    cells = frame.astype(object).where(frame.notna(), None)
    rows: list[dict[str, Any]] = cells.to_dict("records")
    return rows


def _num_columns(path: Path) -> int:
    """Returns how many columns a CSV or TSV has.

    Raises:
        ValueError: A row has more, of which pandas would make names of the rows.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = csv.reader(file, "excel" if path.suffix.lower() == ".csv" else "excel-tab")
        rows = (row for row in cells if len(row) > 1 or "".join(row).strip())  # pandas skips blank lines
        limit = csv.field_size_limit(2**31 - 1)
        try:
            header, first = next(rows, []), next(rows, [])
        finally:
            csv.field_size_limit(limit)
    if len(first) > len(header):
        raise ValueError(f"its rows have more cells than its {len(header)} columns; name them all")
    return len(header)


def _num_lines(path: Path) -> int:
    with path.open("rb") as file:
        return 1 + sum(
            piece.count(b"\n") + piece.count(b"\r") - piece.count(b"\r\n")
            for piece in iter(partial(file.read, 2**20), b"")
        )


def _num_cells(path: Path) -> int:
    """Returns how many cells a table has at most: its rows times its columns, without reading all of it as a table."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        file = require("pyarrow.parquet", extra="train").ParquetFile(path)
        with file:
            groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        in_bytes = sum(group.total_byte_size for group in groups)
        return max(sum(group.num_rows * group.num_columns for group in groups), in_bytes // _CELL_BYTES)
    if suffix in (".csv", ".tsv"):
        return _num_columns(path) * _num_lines(path)
    content = path.read_bytes()
    parsed = (
        [json.loads(line) for line in content.splitlines() if line.strip()]
        if suffix == ".jsonl"
        else json.loads(content)
    )
    rows = list(parsed.values()) if isinstance(parsed, dict) else parsed
    keys = {
        key
        for row in rows
        if isinstance(row, (dict, list))
        for key in (row if isinstance(row, dict) else range(len(row)))
    }
    return len(rows) * max(len(keys), 1)


def _of_sklearn(name: str) -> Rows:
    bunch = getattr(require("sklearn.datasets", extra="train"), name)()
    columns = list(bunch.feature_names)
    classes = list(bunch.target_names) if "target_names" in bunch else None
    return [
        {
            **dict(zip(columns, cells, strict=True)),
            _LABEL: target if classes is None else str(classes[target]),
        }
        for cells, target in zip(bunch.data.tolist(), bunch.target.tolist(), strict=True)
    ]


def _sets(settings: DataSettings, embedded: Mapping[str, Callable[[], Rows]]) -> dict[str, Rows]:
    forms = (
        f"Choose an embedded one ({', '.join(sorted(embedded))}), a file ({', '.join(sorted(_READERS))}), a folder of "
        "them, or the id of a dataset on the Hugging Face hub."
    )
    name = settings.dataset
    if not name:
        raise ValueError(f"There is no dataset. {forms}")
    if name in embedded:
        return {"train": embedded[name]()}
    path = Path(name).expanduser()
    if path.is_file() or path.suffix.lower() in _READERS:
        return {"train": read_rows(path)}
    return {split: rows.to_list() for split, rows in named_splits(load_dataset(name, forms=forms)).items()}


def _column(rows: Rows, column: str, split: str) -> list[Any]:
    if column not in rows[0]:
        raise ValueError(
            f"The {split} set has no column {column!r}, it has {listing(rows[0])}. Name one of these with label_column."
        )
    values = [row.get(column) for row in rows]
    if missing := sum(value is None or value != value for value in values):
        raise ValueError(f"{missing} rows of the {split} set have no {column!r}. Take them out of the table.")
    return values


def _rows(
    sets: Mapping[str, Rows],
    settings: DataSettings,
    table: TableSettings,
    labels: Mapping[str, Sequence[Any]],
) -> dict[str, Rows]:
    label = settings.label_column
    known = [column for column in sets["train"][0] if column != label]
    columns = known if table.columns is None else list(table.columns)
    if unknown := [column for column in columns if column not in known]:
        raise ValueError(
            f"The table has no columns {listing(unknown)} beside the label {label!r}, it has {listing(known)}."
        )
    found: dict[str, Rows] = {}
    for split, rows in sets.items():
        cells = [{column: row.get(column) for column in columns} for row in rows]
        empty = {number for number, row in enumerate(cells, start=1) if all(map(is_missing, row.values()))}
        if empty and not settings.skip_bad_files:
            raise ValueError(
                f"{len(empty)} rows of the {split} set hold nothing in the columns {listing(columns)}: rows "
                f"{listed(sorted(empty))}. Take them out of the table, or set skip_bad_files to go on without them."
            )
        found[split] = [
            {ROWS.name: row, _LABEL: value}
            for number, (row, value) in enumerate(zip(cells, labels[split], strict=True), start=1)
            if number not in empty
        ]
    return found


def _split(
    sets: dict[str, Rows],
    settings: DataSettings,
    *,
    seed: int,
    class_names: tuple[str, ...] = (),
) -> Splits:
    train = sets["train"]
    found = hold_out_missing(
        len(train),
        settings,
        seed=seed,
        present=sets,
        labels=[row[_LABEL] for row in train] if class_names else None,
        class_names=class_names,
    )
    parts = {**sets, **{split: [train[index] for index in indices] for split, indices in found.items()}}
    return Splits(
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts["test"],
        class_names=class_names,
    )


def _name(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
