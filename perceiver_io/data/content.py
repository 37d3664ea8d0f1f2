"""What a task reads of its data: files of one kind, or one column of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Content"]


@dataclass(frozen=True, kw_only=True)
class Content:
    """One kind of content, such as images.

    Attributes:
        column: What its column is called, in tables and in the rows that tasks get: "image".
        noun: What messages call several of them: "images".
        feature: Returns its type in `datasets`, such as `datasets.Image()`; it decodes what a row holds.
        suffixes: Returns the endings of its files, in lower case: {".png", ".jpg"}.
        fault: Says what is wrong with one that is not decoded (`{"path": …, "bytes": …}`, or None), None if it is good.
    """

    column: str
    noun: str
    feature: Callable[..., Any]
    suffixes: Callable[[], set[str]]
    fault: Callable[[Mapping[str, Any] | None], str | None]
