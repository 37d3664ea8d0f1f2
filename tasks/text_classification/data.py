"""Passages of Python's own source: which of its packages they are from."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np

from perceiver_io.data import LabelledRows

__all__ = ["EMBEDDED", "stdlib_packages"]

# Every Python has them, and each has many modules.
_PACKAGES = ("asyncio", "email", "importlib", "multiprocessing", "unittest", "xml")
_SHORTEST, _LONGEST = 256, 512  # bytes of a passage
_MOST = 60  # passages of a module, so that none makes up its package


def stdlib_packages() -> LabelledRows:
    """Returns passages of 256 to 512 bytes of the modules of six packages of Python's standard library.

    Each module is a group: no passage of a module that is tested on is trained on. How many there are depends on the
    Python, some 3,300.
    """
    rng = np.random.default_rng(0)
    library = Path(sysconfig.get_path("stdlib"))
    rows, modules = [], []
    for label, package in enumerate(_PACKAGES):
        for file in sorted((library / package).rglob("*.py")):
            name = file.relative_to(library).as_posix()
            if "/test" in name:  # some Pythons have tests among them
                continue
            passages = _passages(file.read_bytes(), rng)
            kept = np.sort(rng.permutation(len(passages))[:_MOST])
            rows += [{"text": passages[index], "label": label} for index in kept]
            modules += [name] * len(kept)
    return LabelledRows(rows, _PACKAGES, groups=modules)


EMBEDDED = {"stdlib-packages": stdlib_packages}


def _passages(source: bytes, rng: np.random.Generator) -> list[str]:
    """Passages side by side; a rest that is too short is left out."""
    passages, start = [], 0
    while len(source) - start >= _SHORTEST:
        end = start + int(rng.integers(_SHORTEST, _LONGEST + 1))
        passages.append(source[start:end].decode(errors="ignore"))  # a character may be cut
        start = end
    return passages
