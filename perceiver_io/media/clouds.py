"""Files of point clouds.

Shape legend: P points, C columns: coordinates, then further features.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require
from perceiver_io.files import writing
from perceiver_io.media.arrays import is_numpy_file, read_array
from perceiver_io.media.source import (
    Source,
    UnreadableError,
    check_decoded,
    fault_of,
    open_source,
    unreadable,
)

__all__ = [
    "cloud_fault",
    "cloud_suffixes",
    "labels_suffixes",
    "read_cloud",
    "read_labelled_cloud",
    "read_labels",
    "write_labelled_cloud",
]

Cloud: TypeAlias = NDArray[np.float32]

_SUFFIXES = {".npy", ".npz", ".ply", ".xyz", ".pts", ".txt", ".csv"}
_LABELS_SUFFIXES = {".npy", ".npz", ".txt", ".csv", ".seg", ".label"}
_POINTS, _LABELS, _LABEL = "points", "labels", "label"
_COORDINATES = ("x", "y", "z")


def read_cloud(source: Source) -> Cloud:
    """Reads a point cloud; what a file holds says of which kind it is, and not its name.

    - NumPy arrays (.npy, .npz): (points, columns). Of several arrays the one named "points" is read.
    - PLY: x, y and z of the vertices, then their other properties in the order of the file, but one named "label" last.
      Faces are not read.
    - Text (.xyz, .pts, .txt, .csv): a line for each point, with numbers between blanks, commas or semicolons. A first
      line that does not begin with a number is a heading, and what follows a # is a comment.

    Args:
        source: The file: a path, bytes, or a mapping of `path` and `bytes`.

    Returns:
        (P, C) float32, at least one point of at least two columns.

    Raises:
        UnreadableError: There is no such file, it is no cloud, it is damaged, has no points, too few columns, lines of
            unequal length, or values that are NaN or infinite.
        ImportError: plyfile is not installed, and it is a PLY file.
    """
    return _checked(_read(source)[0], source)


def read_labelled_cloud(source: Source) -> tuple[Cloud, NDArray[Any]]:
    """Reads a point cloud from a file that also says what each point is.

    The labels are the array "labels" of a .npz with several, the property "label" of a PLY, and else the last column.

    Args:
        source: As `read_cloud`.

    Returns:
        (P, C) float32 points without their labels, and (P,) labels as the file has them.

    Raises:
        UnreadableError: As `read_cloud`; or there are no labels.
        ImportError: As `read_cloud`.
    """
    points, arrays = _read(source, labelled=True)
    cloud = _checked(points, source)
    if _LABELS in arrays:
        labels = read_labels(source)
        if len(labels) != len(cloud):
            raise unreadable(
                source, f"no cloud with labels: it has {len(cloud)} points, but {len(labels)} labels"
            )
        return cloud, labels
    if cloud.shape[1] < 3:
        raise unreadable(source, "no cloud with labels: its points have 2 columns, expected 3 or more")
    return cloud[:, :-1], cloud[:, -1]


def read_labels(source: Source) -> NDArray[Any]:
    """Reads a file of labels, one number for each point of a cloud.

    Args:
        source: A NumPy array, (P,) or (P, 1), or text with a number on each line; what a file holds says which.

    Returns:
        (P,), in the type of the file.

    Raises:
        UnreadableError: There is no such file, it is damaged or empty, or it holds something else.
    """
    labels, _ = _read(source, wanted=_LABELS)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not labels.size or labels.dtype.kind not in "fiub":
        raise unreadable(
            source,
            f"no file of labels: it holds {labels.dtype} {labels.shape}, expected a number for each point",
        )
    return labels


def write_labelled_cloud(
    path: str | os.PathLike[str], points: NDArray[Any], labels: NDArray[Any], colours: NDArray[np.uint8]
) -> None:
    """Writes a PLY of points with what each is, and in which colour it is to be seen; whole or not at all.

    Args:
        path: The file.
        points: (P, 3) coordinates; fewer than three are filled up with 0.
        labels: (P,) integers.
        colours: (P, 3).

    Raises:
        OSError: The file cannot be written.
        ImportError: plyfile is not installed.
    """
    plyfile = require("plyfile", extra="cloud")
    names = (*((axis, "f4") for axis in _COORDINATES), *((one, "u1") for one in ("red", "green", "blue")))
    vertices = np.zeros(len(points), dtype=[*names, (_LABEL, "i4")])
    for axis, column in zip(_COORDINATES, points.T, strict=False):
        vertices[axis] = column
    for name, column in zip(("red", "green", "blue"), colours.T, strict=True):
        vertices[name] = column
    vertices[_LABEL] = labels
    with writing(Path(path)) as partial:
        plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")]).write(str(partial))


def _read(
    source: Source, *, wanted: str = _POINTS, labelled: bool = False
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The numbers of a file, and the names of the arrays of a .npz."""
    with open_source(source) as file:
        start = file.read(6)
        file.seek(0)
        try:
            if is_numpy_file(start):
                return read_array(file, source, name=wanted)
            if start.startswith(b"ply"):
                return _ply_points(file.read(), source, labelled), ()
            return _text_points(file), ()
        except _WrongCloudError as error:
            raise unreadable(source, f"no point cloud: {error}") from error
        except (ImportError, UnreadableError):
            raise
        except Exception as error:  # readers raise what they like
            raise unreadable(source, f"not a point cloud, or damaged ({str(error).rstrip('.')})") from error


def _checked(points: NDArray[Any], source: Source) -> Cloud:
    if points.dtype.kind not in "fiu":
        raise unreadable(source, f"no point cloud: it holds {points.dtype}, expected real numbers")
    if points.ndim != 2:
        raise unreadable(
            source, f"no point cloud: it has the shape {points.shape}, expected (points, columns)"
        )
    if not len(points):
        raise unreadable(source, "empty: it has no points")
    if points.shape[1] < 2:
        raise unreadable(
            source,
            f"no point cloud: its points have {points.shape[1]} columns, expected two coordinates or more",
        )
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large becomes infinite, which is found
        cloud = np.ascontiguousarray(points, np.float32)
    if not np.isfinite(cloud).all():
        place = int(np.argwhere(~np.isfinite(cloud).all(1))[0, 0])
        raise unreadable(source, f"NaN or infinite at point {place}")
    return cloud


def cloud_suffixes() -> set[str]:
    """Returns the endings of files of point clouds that can be read, in lower case."""
    return set(_SUFFIXES)


def labels_suffixes() -> set[str]:
    """Returns the endings of files of labels that can be read, in lower case."""
    return set(_LABELS_SUFFIXES)


def cloud_fault(source: Source | None) -> str | None:
    """Returns what is wrong with a file of a point cloud, None if it can be read.

    Args:
        source: As `read_cloud`; None where there is none.
    """
    return fault_of(read_cloud, source)


class _WrongCloudError(ValueError):
    """A file that can be read, but holds no cloud."""


def _ply_points(content: bytes, source: Source, labelled: bool) -> NDArray[Any]:
    plyfile = require("plyfile", extra="cloud")
    elements = plyfile.PlyData.read(io.BytesIO(_upto_vertices(content)))
    vertices = elements["vertex"]
    lists = [one.name for one in vertices.properties if isinstance(one, plyfile.PlyListProperty)]
    names = [one.name for one in vertices.properties]
    if lists or not set(names) >= set(_COORDINATES):
        raise _WrongCloudError(
            f"its vertices have {names}, lists among them: {lists}; expected x, y, z and no lists"
        )
    if labelled and _LABEL not in names:
        raise _WrongCloudError(f"its vertices have {names}, {_LABEL!r} is not among them")
    order = [*_COORDINATES, *(name for name in names if name not in (*_COORDINATES, _LABEL))]
    order += [_LABEL] if _LABEL in names else []
    check_decoded(source, len(order) * vertices.count * np.dtype(np.float64).itemsize)
    return np.stack([np.asarray(vertices[name], np.float64) for name in order], axis=1)


def _upto_vertices(content: bytes) -> bytes:
    """Leaves the elements that follow the vertices out of a header, so that faces are not read.

    Raises:
        ValueError: It has no vertices, or says that it has more of something than there are bytes.
    """
    end = re.search(rb"(?<=[\r\n])end_header[ \t]*(\r\n|\n|\r)", content)
    if end is None:
        raise ValueError("its header has no end")
    kept: list[bytes] = []
    found: list[str] = []
    for line in content[: end.start()].splitlines(keepends=True):
        words = line.decode("ascii", "replace").split()
        if words[:1] == ["element"] and len(words) == 3:
            if "vertex" in found:
                break
            found.append(words[1])
            if not 0 <= int(words[2]) <= len(content):  # each takes a byte or more
                raise _WrongCloudError(
                    f"it says that it has {words[2]} of {words[1]!r}, and it has {len(content):,} bytes"
                )
        kept.append(line)
    if "vertex" not in found:
        raise _WrongCloudError(f"it has the elements {found}, expected vertex")
    return b"".join([*kept, content[end.start() :]])


def _text_points(file: BinaryIO) -> NDArray[Any]:
    text = file.read().decode().replace(",", " ").replace(";", " ")
    lines = text.splitlines()
    rows = [row for line in lines if (row := line.partition("#")[0].split())]
    if rows and not _is_number(rows[0][0]):
        rows = rows[1:]
    if not rows:
        raise _WrongCloudError("it has no points")
    width = len(rows[0])
    for index, row in enumerate(rows):
        if len(row) != width:
            raise _WrongCloudError(f"point {index} has {len(row)} columns, the first has {width}")
    return np.loadtxt(io.StringIO("\n".join(map(" ".join, rows))), ndmin=2)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
