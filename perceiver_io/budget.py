"""What a file from a stranger may cost, checked before anything is made of its values.

SECURITY.md states the same numbers. What is read of a file shares parts: a few hundred bytes can describe more values
than any memory holds, and nest them more deeply than any stack reaches. So values are counted as often as something
that walks through them would meet them, without recursion.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = [
    "MOST_DECODED_BYTES",
    "MOST_INFLATION",
    "MOST_JSON_VALUES",
    "MOST_LEVELS",
    "MOST_VALUES",
    "check_nesting",
    "most_decoded_bytes",
]

MOST_LEVELS = 32
"""How deeply values may be nested: configurations have 4 levels, trees of parameters 2, states of optimizers 8."""

MOST_VALUES = 100_000
"""How many values a file may describe whose values can share parts, YAML and pickles."""

MOST_JSON_VALUES = 5_000_000
"""How many values a file of JSON may describe, by its brackets and commas: a tokenizer of a million tokens has 3e6."""

MOST_DECODED_BYTES = 4 * 2**30
"""How many bytes the values of one media or data file may take once it is decoded, unless the environment variable
`PERCEIVER_IO_MOST_DECODED_BYTES` says otherwise.

That is three hours of stereo sound at 48,000 samples a second, 170 million points of three coordinates in double
precision, twenty minutes of video in clips of 224 x 224 pixels at 25 frames a second. Readers take up to three times as
much for a moment.
"""

MOST_INFLATION = 100_000
"""How many bytes of frames that are decoded one by one each byte of a video may stand for, beyond the bytes that values
may take: slides that stand still for an hour in 4K have half of that."""

_DECODED_BYTES = "PERCEIVER_IO_MOST_DECODED_BYTES"


def most_decoded_bytes() -> int:
    """Returns how many bytes the values of one file may take: `MOST_DECODED_BYTES`, or what the environment says.

    Raises:
        ValueError: It says something that is no number of bytes.
    """
    said = os.environ.get(_DECODED_BYTES)
    if said is None:
        return MOST_DECODED_BYTES
    if not (said.isascii() and said.isdigit() and len(said) <= 18 and int(said)):
        raise ValueError(
            f"{_DECODED_BYTES} is {said!r:.80}, expected a number of bytes, such as {MOST_DECODED_BYTES}."
        )
    return int(said)


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple)) else ()


def check_nesting(
    values: Any, *, most_values: int | None = None, items: Callable[[Any], Iterable[Any]] = _items
) -> None:
    """Raises an error if values are nested too deeply, or are too many.

    Args:
        values: Containers within containers; they may hold themselves.
        most_values: How many there may be, shared ones counted wherever they are; no limit if None.
        items: What a value holds.

    Raises:
        ValueError: They are.
    """
    level, found = [values], 1
    for _ in range(MOST_LEVELS):
        inner: list[Any] = []
        for outer in level:
            inner.extend(items(outer))
            if most_values is not None and found + len(inner) > most_values:
                raise ValueError(
                    f"it describes more than {most_values:,} values, those counted again that it names again."
                )
        found += len(inner)
        level = inner
    if level:
        raise ValueError(f"it is nested too deeply, expected at most {MOST_LEVELS} levels.")
