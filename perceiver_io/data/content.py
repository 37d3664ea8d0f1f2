"""What a task reads of its data: files of one kind, or one column of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perceiver_io.extras import require

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Content", "file_feature"]


def file_feature(**settings: Any) -> Any:
    """Returns the type of a column of files that `datasets` has no type for: their bytes, or where they lie."""
    datasets = require("datasets", extra="train")
    return {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True, kw_only=True)
class Content:
    """One kind of content, such as images.

    Attributes:
        column: What its column is called, in tables and in the rows that tasks get: "image".
        noun: What messages call several of them: "images".
        feature: Returns its type in `datasets`, such as `datasets.Image()`; `decode=False` is passed where files are
            to be looked at and not decoded.
        suffixes: Returns the endings of its files, in lower case: {".png", ".jpg"}.
        fault: Says what is wrong with one that is not decoded (`{"path": …, "bytes": …}`, or None), None if it is good.
        decode: Returns what the processor takes of what a row holds: of `{"path": …, "bytes": …}`, and of what it takes
            already. Raises ValueError for what is missing or damaged.
        stored: Returns what a column holds of a file, by its path.
        typed: Gives a column of a table, by its name, the type of `feature`; a cast if None.
    """

    column: str
    noun: str
    feature: Callable[..., Any]
    suffixes: Callable[[], set[str]]
    fault: Callable[[Mapping[str, Any] | None], str | None]
    decode: Callable[[Any], Any] = _as_it_is
    stored: Callable[[str], Any] = _as_it_is
    typed: Callable[[Dataset, str], Dataset] | None = None

    def read(self, file: str) -> Any:
        """Opens a file.

        Raises:
            ValueError: There is no such file, or it is damaged, or none of this kind.
        """
        return self.decode({"path": file, "bytes": None})

    def in_column(self, rows: Dataset, column: str) -> Dataset:
        """Returns rows of a table whose column of that name has this content's type.

        Raises:
            TypeError: It cannot have it. ValueError and NotImplementedError mean the same.
        """
        return rows.cast_column(column, self.feature()) if self.typed is None else self.typed(rows, column)
