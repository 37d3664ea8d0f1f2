"""Files that are nearly right: valid ones with bytes changed, cut, repeated, and numbers set to odd values."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hypothesis import strategies as st

__all__ = ["ODD_NUMBERS", "mutated"]

ODD_NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    255,
    256,
    2**15,
    2**16 - 1,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**64 - 1,
)
"""What fields of files break at."""

_HEADER = 96  # bytes at the start of a file, where most fields are
_CHANGES = ("number", "bit", "bit", "bytes", "cut", "delete", "insert", "repeat")
_FORMS = ("B", "<H", ">H", "<I", ">I", "<Q", ">Q")


def _apply(content: bytes, operation: tuple[str, int, int, int, bytes]) -> bytes:
    kind, place, form, number, extra = operation
    place %= max(len(content), 1)
    if kind == "number":
        packing = _FORMS[form % len(_FORMS)]
        size = struct.calcsize(packing)
        value = struct.pack(packing, ODD_NUMBERS[number % len(ODD_NUMBERS)] & (1 << 8 * size) - 1)
        return content[:place] + value + content[place + size :]
    if kind == "bit":
        changed = bytearray(content)
        if changed:
            changed[place] ^= 1 << form % 8
        return bytes(changed)
    if kind == "cut":
        return content[:place]
    if kind == "delete":
        return content[:place] + content[place + 1 + number :]
    if kind == "insert":
        return content[:place] + extra + content[place:]
    if kind == "repeat":
        part = content[place : place + 1 + number]
        return content[:place] + part * (2 + form) + content[place + len(part) :]
    return content[:place] + extra + content[place + len(extra) :]


def mutated(originals: Sequence[bytes], *, most: int = 2, in_place: bool = False) -> st.SearchStrategy[bytes]:
    """Returns a strategy of files with no, one or several of these changes; each file comes unchanged, too.

    Args:
        originals: Valid files.
        most: How many changes a file has at most.
        in_place: Whether files keep their lengths, where all others would be refused alike.
    """
    anywhere = st.integers(0, max(map(len, originals)))
    places = anywhere if in_place else st.one_of(st.integers(0, _HEADER), anywhere, anywhere)
    operations = st.tuples(
        st.sampled_from(("bit", "bytes") if in_place else _CHANGES),
        places,
        st.integers(0, 7),
        st.integers(0, 64),
        st.binary(min_size=1, max_size=8),
    )

    def changed(content: bytes, changes: Sequence[tuple[str, int, int, int, bytes]]) -> bytes:
        for one in changes:
            content = _apply(content, one)
        return content

    return st.builds(changed, st.sampled_from(list(originals)), st.lists(operations, max_size=most))
