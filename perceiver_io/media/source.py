"""Encoded content as people have it: the path of a file, its bytes, or a row of `datasets` with either."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from perceiver_io.budget import most_decoded_bytes
from perceiver_io.printable import shown

__all__ = [
    "Source",
    "UnreadableError",
    "check_decoded",
    "fault_of",
    "is_source",
    "located",
    "open_source",
    "unreadable",
]

Source: TypeAlias = "str | os.PathLike[str] | bytes | Mapping[str, Any]"
"""A path, the bytes of a file, or ``{"path": …, "bytes": …}``, as rows of `datasets` that are not decoded have it."""


_LONGEST_REASON = 500


class UnreadableError(ValueError):
    """Content that cannot be used; made by `unreadable`.

    Attributes:
        reason: What it is instead, without its name: "missing".
    """

    reason = "unreadable"


def unreadable(source: Source, reason: str) -> UnreadableError:
    """Returns the error that says which content cannot be used, and why; what it quotes is cut and escaped."""
    reason = shown(reason, most=_LONGEST_REASON)
    error = UnreadableError(f"{shown(_name(source))} is {reason}.")
    error.reason = reason
    return error


def check_decoded(source: Source, num_bytes: int, what: str = "it") -> None:
    """Refuses content whose values would take more memory than a file may ask for.

    Args:
        source: The content.
        num_bytes: How much they take, or a header says that they do.
        what: What takes it.

    Raises:
        UnreadableError: It is more than `perceiver_io.budget.most_decoded_bytes`.
    """
    most = most_decoded_bytes()
    if num_bytes > most:
        raise unreadable(
            source,
            f"too large: decoded, {what} would take {num_bytes:,} bytes, and at most {most:,} are read. Set the "
            "environment variable PERCEIVER_IO_MOST_DECODED_BYTES to a larger number if you trust the file",
        )


def is_source(value: Any) -> bool:
    """Returns whether a value is encoded content, and not what is decoded from it."""
    if isinstance(value, Mapping):
        return not value.keys() - {"path", "bytes"} and any(part is not None for part in value.values())
    return isinstance(value, (str, os.PathLike, bytes))


def located(source: Source) -> Any:
    """Returns where content lies: the path of a file, or its bytes; None where there is none."""
    if isinstance(source, Mapping):
        return source.get("path") if source.get("bytes") is None else source["bytes"]
    return source


def open_source(source: Source) -> BinaryIO:
    """Opens content for reading.

    Raises:
        UnreadableError: There is no such file, it is empty, or it may not be read.
        ValueError: It is no content at all; or the budget of what may be decoded is no number.
    """
    most_decoded_bytes()  # what is wrong with the setting is not wrong with the file
    where = located(source)
    if where is None:
        raise unreadable(source, "missing")
    if isinstance(where, bytes):
        file: BinaryIO = io.BytesIO(where)
    elif isinstance(where, (str, os.PathLike)):
        path = Path(where)
        try:
            kind = stat.S_IFMT(path.stat().st_mode)
            if kind not in (stat.S_IFREG, stat.S_IFDIR):
                raise unreadable(
                    source, "no file, but a device or a pipe, which may never end; make a file of it"
                )
            file = path.open("rb")
        except FileNotFoundError as error:
            raise unreadable(source, "missing") from error
        except UnreadableError:
            raise
        except (OSError, ValueError) as error:  # a name may hold NUL
            raise unreadable(source, f"not readable ({getattr(error, 'strerror', None) or error})") from error
    else:
        raise ValueError(
            f"Got {type(where).__name__}, expected the path of a file, its bytes, or a mapping of `path` and `bytes`."
        )
    if not file.read(1):
        file.close()
        raise unreadable(source, "empty")
    file.seek(0)
    return file


def fault_of(read: Callable[[Any], Any], source: Source | None) -> str | None:
    """Returns what is wrong with content, None if it can be read.

    Args:
        read: Reads it, or raises an `UnreadableError`.
        source: The content; None where there is none.
    """
    if source is None:
        return "missing"
    try:
        read(source)
    except UnreadableError as error:
        return error.reason
    return None


def _name(source: Source) -> str:
    path = source.get("path") if isinstance(source, Mapping) else source
    return f"A file of {len(path)} bytes" if isinstance(path, bytes) else str(path or "A file without a name")
