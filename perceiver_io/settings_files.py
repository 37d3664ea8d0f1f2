"""Files of settings beside a model, which others read: looked through before, and whatever they raise is one error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perceiver_io.config_json import read_json_object
from perceiver_io.printable import reason_of

__all__ = ["reading_settings"]


@contextmanager
def reading_settings(source: str | os.PathLike[str], *names: str) -> Iterator[None]:
    """For the block that reads JSON files beside a model: whatever is wrong with them becomes an error that names one.

    Args:
        source: The folder or hub id.
        names: The files that are read; they need not be there.

    Raises:
        ValueError: A file holds no JSON object, or values that nobody can use.
        OSError: A file cannot be read or fetched.
        ImportError: What reads one needs a package that is not installed.
    """
    present = [name for name in names if Path(source, name).is_file()]
    for name in present:
        _check_object(Path(source, name))
    try:
        yield
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"The {' or '.join(present or names[:1])} of {source} is damaged: {reason_of(error):.500}"
        ) from error


def _check_object(file: Path) -> None:
    try:
        read_json_object(file)
    except ValueError as error:
        raise ValueError(f"The {file.name} of {file.parent} is damaged: {str(error).rstrip('.')}.") from error
