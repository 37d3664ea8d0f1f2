"""Cases made of good files: values of JSON that are others, bytes that are others."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

__all__ = [
    "ODD_VALUES",
    "changed_bytes",
    "changed_values",
    "json_like",
    "near",
    "places",
    "replaced",
    "value_at",
]

Place = tuple[Any, ...]

_ODD_NUMBERS = [
    *(0, 1, -1, 2, 3, 0.5, -0.5, 7, 10**4, 2**31, 2**32, 10**9, 10**12, 2**62, 2**63 - 1, 2**63, 10**30),
    *(-(10**12), -(2**63), 10**400, 1e308, 1e-320, -0.0),
]
_ODD_TEXTS = [
    "",
    "image",
    "none",
    "0",
    "\x00",
    "\x1b[2J",
    "a" * 5000,
    "a\nb",
    "\u202e",
    "os.system",
    "\ud800",
]
_ODD = [*_ODD_NUMBERS, *_ODD_TEXTS, True, False, None, [], {}]


def _odd(index: int) -> Any:
    return _ODD[index]


ODD_VALUES = st.integers(0, len(_ODD) - 1).map(_odd)  # by index: statistics would print them all
"""What a field is hardly ever meant to be; all of it can be written as JSON."""


def json_like(leaves: st.SearchStrategy[Any] = ODD_VALUES) -> st.SearchStrategy[Any]:
    """Values within values, few of them."""
    return st.recursive(
        leaves | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )


def places(values: Any, place: Place = ()) -> Iterator[Place]:
    """The place of everything in values that JSON can hold, the whole first."""
    yield place
    for key in values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ():
        yield from places(values[key], (*place, key))


def value_at(values: Any, place: Place) -> Any:
    for key in place:
        values = values[key]
    return values


def replaced(values: Any, place: Place, new: Any) -> Any:
    """A copy with another value at a place."""
    return _changed(values, place, lambda outer, key: outer.__setitem__(key, new)) if place else new


def _changed(values: Any, place: Place, change: Callable[[Any, Any], Any]) -> Any:
    copy = values.copy()
    if len(place) == 1:
        change(copy, place[0])
    else:
        copy[place[0]] = _changed(copy[place[0]], place[1:], change)
    return copy


@st.composite
def changed_values(draw: st.DrawFn, original: Any, *, most: int = 2) -> Any:
    """Values with one change or two: a field left out, added, moved, slightly other, or anything."""
    values = original
    for _ in range(draw(st.integers(1, most))):
        everywhere = list(places(values))
        place = draw(st.sampled_from(everywhere))
        kind = draw(st.sampled_from(["near", "near", "near", "odd", "any", "drop", "add", "move"]))
        if not place and kind != "any":
            continue
        if kind == "drop":
            values = _changed(values, place, lambda outer, key: outer.pop(key))
            continue
        if kind == "add":
            new = draw(json_like())
            name = draw(st.sampled_from([key for one in everywhere for key in one if isinstance(key, str)]))
            values = _changed(
                values,
                place,
                lambda outer, key: (
                    outer.__setitem__(name, new) if isinstance(outer, dict) else outer.append(new)  # noqa: B023
                ),
            )
            continue
        if kind == "near":
            new = draw(near(value_at(values, place)))
        elif kind == "move":
            new = value_at(values, draw(st.sampled_from(everywhere)))
        else:
            new = draw(ODD_VALUES if kind == "odd" else json_like())
        values = replaced(values, place, new)
    return values


def near(value: Any) -> st.SearchStrategy[Any]:
    """What may well be meant in place of a value."""
    if value is None:
        return st.sampled_from([1, 2, 0.5, True, "a"])
    if isinstance(value, bool):
        return st.just(not value)
    if isinstance(value, int):
        return st.sampled_from(
            [value + 1, max(value - 1, 0), 2 * value, value // 2, float(value % 2**40), 1, 8, None]
        )
    if isinstance(value, float):
        return st.sampled_from([value / 2, 2 * value, value + 1, -value, 0.25, 1, None])
    if isinstance(value, str):
        return st.sampled_from(
            [value.upper(), value[:-1], f"{value}2", f"{value} ", "none", "fourier", "learned"]
        )
    if isinstance(value, list):
        return st.sampled_from([value[:-1], value + value, value[::-1], [value], [8, 8]])
    return st.sampled_from([dict(reversed(value.items())), {}, {"a": value}, list(value)])


_INTEGERS = [
    struct.pack(form, number)
    for form in ("<B", "<H", "<I", "<Q", ">I")
    for number in (0, 1, 127, 2 ** (8 * struct.calcsize(form)) - 1, 2 ** (8 * struct.calcsize(form) - 1))
]


@st.composite
def changed_bytes(
    draw: st.DrawFn, original: bytes, *, most: int = 2, pieces: list[bytes] | None = None
) -> bytes:
    """Bytes with one change or a few: flipped, cut, left out, repeated, moved; odd integers and pieces put in.

    Args:
        draw: Hypothesis's.
        original: The bytes.
        most: How many changes.
        pieces: What may be put in, such as words of the format.
    """
    content = bytearray(original)
    for _ in range(draw(st.integers(1, most))):
        if not content:
            break
        start = draw(st.integers(0, len(content) - 1) | st.integers(len(content) // 2, len(content) - 1))
        kind = draw(
            st.sampled_from(
                ["flip", "flip", "flip", "set", "set", "put", "number", "cut", "omit", "repeat", "move"]
            )
        )
        length = draw(st.sampled_from([1, 2, 3, 4, 8, 16, 64, 1000]))
        if kind == "flip":
            content[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            content[start] = draw(st.integers(0, 255))
        elif kind == "number":
            number = draw(st.sampled_from(_INTEGERS))
            content[start : start + len(number)] = number
        elif kind == "put":
            content[start:start] = draw(st.sampled_from(pieces)) if pieces else draw(st.binary(max_size=8))
        elif kind == "cut":
            del content[start:]
        elif kind == "omit":
            del content[start : start + length]
        else:
            piece = content[start : start + length]
            place = draw(st.integers(0, len(content)))
            content[place:place] = piece * (1 if kind == "move" else draw(st.integers(1, 40)))
    return bytes(content)
