"""Files of point clouds.

Shape legend: P points, C columns: coordinates, then further features.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require
from perceiver_io.media.source import Source, fault_of, open_source, unreadable

__all__ = ["cloud_fault", "cloud_suffixes", "read_cloud"]

Cloud: TypeAlias = NDArray[np.float32]

_SUFFIXES = {".npy", ".npz", ".ply", ".xyz", ".txt", ".csv"}
_POINTS = "points"
_COORDINATES = ("x", "y", "z")


def read_cloud(source: Source) -> Cloud:
    """Reads a point cloud; what a file holds says of which kind it is, and not its name.

    - NumPy arrays (.npy, .npz): (points, columns). Of several arrays the one named "points" is read.
    - PLY: x, y and z of the vertices, then their other properties in the order of the file. Faces are not read.
    - Text (.xyz, .txt, .csv): a line for each point, with numbers between blanks, commas or semicolons. A first line
      that does not begin with a number is a heading, and what follows a # is a comment.

    Args:
        source: The file: a path, bytes, or a mapping of `path` and `bytes`.

    Returns:
        (P, C) float32, at least one point of at least two columns.

    Raises:
        UnreadableError: There is no such file, it is no cloud, it is damaged, has no points, too few columns, lines of
            unequal length, or values that are NaN or infinite.
        ImportError: plyfile is not installed, and it is a PLY file.
    """
    with open_source(source) as file:
        start = file.read(6)
        file.seek(0)
        try:
            if start.startswith((b"\x93NUMPY", b"PK")):
                points = _numpy_points(file)
            elif start.startswith(b"ply"):
                points = _ply_points(file)
            else:
                points = _text_points(file)
        except _WrongCloudError as error:
            raise unreadable(source, f"no point cloud: {error}") from error
        except ImportError:
            raise
        except Exception as error:  # readers raise what they like
            raise unreadable(source, f"not a point cloud, or damaged ({str(error).rstrip('.')})") from error
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
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is found
        cloud = np.ascontiguousarray(points, np.float32)
    if not np.isfinite(cloud).all():
        place = int(np.argwhere(~np.isfinite(cloud).all(1))[0, 0])
        raise unreadable(source, f"NaN or infinite at point {place}")
    return cloud


def cloud_suffixes() -> set[str]:
    """Returns the endings of files of point clouds that can be read, in lower case."""
    return set(_SUFFIXES)


def cloud_fault(source: Source | None) -> str | None:
    """Returns what is wrong with a file of a point cloud, None if it can be read.

    Args:
        source: As `read_cloud`; None where there is none.
    """
    return fault_of(read_cloud, source)


class _WrongCloudError(ValueError):
    """A file that can be read, but holds no cloud."""


def _numpy_points(file: BinaryIO) -> NDArray[Any]:
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        names = loaded.files
        name = names[0] if len(names) == 1 else _POINTS
        if name not in names:
            raise _WrongCloudError(f"it holds the arrays {names}, expected one, or one named {_POINTS!r}")
        points: NDArray[Any] = loaded[name]
        return points


def _ply_points(file: BinaryIO) -> NDArray[Any]:
    plyfile = require("plyfile", extra="cloud")
    elements = plyfile.PlyData.read(io.BytesIO(file.read()))  # files it maps, or leaves open
    if "vertex" not in elements:
        raise _WrongCloudError(f"it has the elements {[one.name for one in elements]}, expected vertex")
    vertices = elements["vertex"]
    lists = [one.name for one in vertices.properties if isinstance(one, plyfile.PlyListProperty)]
    names = [one.name for one in vertices.properties]
    if lists or not set(names) >= set(_COORDINATES):
        raise _WrongCloudError(
            f"its vertices have {names}, lists among them: {lists}; expected x, y, z and no lists"
        )
    order = [*_COORDINATES, *(name for name in names if name not in _COORDINATES)]
    return np.stack([np.asarray(vertices[name], np.float64) for name in order], axis=1)


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
