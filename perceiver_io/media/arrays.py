"""NumPy's files: one array, or an archive of several with names, taking memory for what is there."""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from perceiver_io.media.source import Source, check_decoded, unreadable

__all__ = ["is_numpy_file", "read_array"]

_ARRAY, _ARCHIVE = b"\x93NUMPY", b"PK"
_ENDING = ".npy"
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def is_numpy_file(start: bytes) -> bool:
    """Returns whether a file that begins with these bytes, six or more, is one of NumPy's."""
    return start.startswith((_ARRAY, _ARCHIVE))


def read_array(
    file: BinaryIO, source: Source, *, name: str | None = None
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Reads the array of a file, or one of several.

    Args:
        file: A file of `.npy` or `.npz`, from its beginning on.
        source: What messages call it.
        name: Which of several arrays.

    Returns:
        The array, and the names of all arrays of an archive.

    Raises:
        UnreadableError: It is an archive of several arrays without that one, or of arrays that are too large.
        Exception: It is damaged: what NumPy and zipfile raise.
    """
    if file.read(len(_ARRAY)) == _ARRAY:
        file.seek(0)
        return _array(file.read()), ()
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        members = {one.filename.removesuffix(_ENDING): one for one in archive.infolist()}
        names = tuple(members)
        chosen = names[0] if len(names) == 1 else name
        if chosen is None or chosen not in members:
            wanted = "one" if name is None else f"one, or one named {name!r}"
            raise unreadable(source, f"an archive of {len(names)} arrays, expected {wanted}: {list(names)}")
        member = members[chosen]
        check_decoded(source, member.file_size, f"the array {chosen!r}")
        if member.compress_type not in _COMPRESSIONS:
            raise ValueError("it is compressed in another way than NumPy does it")
        with archive.open(member) as inner:
            return _array(inner.read(member.file_size)), names


def _array(content: bytes) -> NDArray[Any]:
    """The array of a .npy; unlike NumPy's own reader, this takes no memory before it has seen the values."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"it is of version {version} of NumPy's format, which only records need")
    shape, is_fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f"it says that it holds {dtype} of the shape {shape}")
    values = np.frombuffer(content, dtype, math.prod(shape), file.tell())
    return values.reshape(shape, order="F" if is_fortran else "C").copy()
