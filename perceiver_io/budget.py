"""What a file from a stranger may cost, checked before anything is made of its values.

SECURITY.md states the same numbers. What is read of a file shares parts: a few hundred bytes can describe more values
than any memory holds, and nest them more deeply than any stack reaches. So values are counted as often as something
that walks through them would meet them, without recursion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["MOST_JSON_VALUES", "MOST_LEVELS", "MOST_VALUES", "check_nesting"]

MOST_LEVELS = 32
"""How deeply values may be nested: configurations have 4 levels, trees of parameters 2, states of optimizers 8."""

MOST_VALUES = 100_000
"""How many values a file may describe whose values can share parts, YAML and pickles."""


MOST_JSON_VALUES = 3_000_000
"""How many values a file of JSON may describe, by its brackets and commas: a tokenizer of 256,000 tokens has 2e6."""


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
