"""Files of rows, as the predictions of tables read them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.running.row_task import RowTask
from perceiver_io.tasks.modalities.table import ROWS
from perceiver_io.tasks.tabular.data import TABLE_SUFFIXES, read_rows

__all__ = ["TableFiles", "chosen_columns"]


class TableFiles(RowTask):
    """A task that reads files of tables: each of their rows is a sample."""

    input_metavar = "TABLE"

    def read(self, file: str) -> dict[str, Any]:
        """Reads the first row of a table, or the one that ``table.csv:3`` says."""
        return self.named_rows(file)[0][1]

    def named_rows(self, file: str) -> list[tuple[str, Any]]:
        """Returns the rows of a file with their names, ``table.csv:3``; or the one row that such a name says.

        Raises:
            ValueError: The file cannot be read, or has no such row.
        """
        of_row = re.fullmatch(r"(.+):(\d+)", file)
        if of_row and not Path(file).exists():
            rows, number = read_rows(of_row[1]), int(of_row[2])
            if not 1 <= number <= len(rows):
                raise ValueError(f"{of_row[1]} has {len(rows)} rows, there is no row {number}.")
            return [(file, {ROWS.name: rows[number - 1]})]
        return [(f"{file}:{number}", {ROWS.name: row}) for number, row in enumerate(read_rows(file), start=1)]

    def file_suffixes(self) -> set[str]:
        """Returns the endings of tables."""
        return TABLE_SUFFIXES


def chosen_columns(
    rows: Sequence[Mapping[str, Any]], processor: PerceiverIOProcessor
) -> list[dict[str, Any]]:
    """Returns rows with the columns that a processor knows: a file may have more, its labels among them.

    Raises:
        ValueError: A row has none of them.
    """
    columns = processor.processors[ROWS.name].to_dict()["columns"]
    chosen = []
    for row in rows:
        cells = {column: row[ROWS.name][column] for column in columns if column in row[ROWS.name]}
        if not cells:
            raise ValueError(f"The row has the columns {list(row[ROWS.name])}, expected some of {columns}.")
        chosen.append({**row, ROWS.name: cells})
    return chosen
