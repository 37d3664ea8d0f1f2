"""The corpus that needs no download: the text of Python's own standard library."""

from __future__ import annotations

import sysconfig
from pathlib import Path

__all__ = ["EMBEDDED"]


def _standard_library() -> list[bytes]:
    """Returns the source of the standard library's modules that are single files, sorted by name."""
    documents = []
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        content = file.read_bytes()
        try:
            content.decode()
        except UnicodeDecodeError:
            continue
        documents.append(content)
    return documents


EMBEDDED = {"stdlib": _standard_library}
