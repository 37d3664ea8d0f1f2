"""Files of point clouds: every format gives the points that were written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plyfile
import pytest

from perceiver_io.media.clouds import (
    cloud_fault,
    cloud_suffixes,
    labels_suffixes,
    read_cloud,
    read_labelled_cloud,
    read_labels,
    write_labelled_cloud,
)

POINTS = np.array([[0, 1, 2, 9], [3, 4.5, -5, 8], [3, 4.5, -5, 8], [0.25, 1, 7, 7]], np.float32)


def saved(save: Any, *args: Any, **kwargs: Any) -> bytes:
    file = io.BytesIO()
    save(file, *args, **kwargs)
    return file.getvalue()


def ply(points: np.ndarray, names: Sequence[str] = "xyzw", *, text: bool = False) -> bytes:
    vertices = np.array([tuple(point) for point in points], dtype=[(name, "f4") for name in names])
    file = io.BytesIO()
    plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")], text=text).write(file)
    return file.getvalue()


LINES = [" ".join(map(str, point)) for point in POINTS]
FILES = {
    "a.npy": saved(np.save, POINTS),
    "double.npy": saved(np.save, POINTS.astype(np.float64)),
    "one.npz": saved(np.savez, anything=POINTS),
    "two.npz": saved(np.savez_compressed, labels=np.zeros(3), points=POINTS),
    "binary.ply": ply(POINTS),
    "text.ply": ply(POINTS, text=True),
    "old.ply": ply(POINTS, text=True).replace(b"\n", b"\r"),
    "other order.ply": ply(POINTS[:, [3, 2, 0, 1]], "wzxy"),
    "a.xyz": "\n".join(LINES).encode(),
    "a.txt": ("# a comment\n\n" + "\r\n".join(LINES) + "\n").encode(),
    "a.csv": ("x,y,z,w\n" + "\n".join(LINES).replace(" ", ",")).encode(),
    "b.csv": "\n".join(LINES).replace(" ", "; ").encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_a_cloud_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    assert path.suffix in cloud_suffixes()
    for source in (path, str(path), FILES[name], {"path": None, "bytes": FILES[name]}):
        cloud = read_cloud(source)
        assert cloud.dtype == np.float32
        np.testing.assert_array_equal(cloud, POINTS)
        assert cloud_fault(source) is None


BAD = {
    "objects.npy": (saved(np.save, np.array([None, 3]), allow_pickle=True), "not a point cloud"),
    "half.npy": (FILES["a.npy"][:-8], "not a point cloud, or damaged"),
    "half.npz": (FILES["one.npz"][:100], "not a point cloud, or damaged"),
    "half.ply": (FILES["binary.ply"][:-8], "not a point cloud, or damaged"),
    "header.ply": (FILES["binary.ply"][:20], "not a point cloud, or damaged"),
    "flat.npy": (saved(np.save, np.zeros(4)), r"shape \(4,\)"),
    "none.npy": (saved(np.save, np.zeros((0, 3))), "no points"),
    "none.ply": (ply(POINTS[:0]), "no points"),
    "none.csv": (b"x,y,z\n", "no points"),
    "narrow.npy": (saved(np.save, np.zeros((4, 1))), "1 columns, expected two"),
    "strange.ply": (ply(POINTS[:, :3], "xyw"), "expected x, y, z"),
    "complex.npy": (saved(np.save, np.zeros((4, 3), complex)), "complex128"),
    "several.npz": (saved(np.savez, a=POINTS, b=POINTS), r"\['a', 'b'\]"),
    "nan.npy": (saved(np.save, np.array([[0, 1], [np.nan, 1]])), "NaN or infinite at point 1"),
    "large.npy": (saved(np.save, np.array([[0, 1e300]])), "NaN or infinite at point 0"),
    "ragged.csv": (b"1,2,3\n1,2\n", "point 1 has 2 columns, the first has 3"),
    "gap.csv": (b"1,2,3\n1,,3\n", "point 1 has 2 columns"),
    "words.txt": (b"1 2 3\n4 five 6\n", "not a point cloud"),
    "latin.txt": (b"\xff\xfe", "not a point cloud"),
    "empty.npy": (b"", "empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_clouds_say_which_and_why(name: str, tmp_path: Path) -> None:
    content, reason = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is .*{reason}"):
        read_cloud(path)
    assert cloud_fault({"path": str(path), "bytes": None})


def test_a_missing_cloud_is_missing(tmp_path: Path) -> None:
    assert cloud_fault(None) == cloud_fault(tmp_path / "gone.ply") == "missing"


LABELS = np.array([2, 0, 0, 1])
LABELLED = np.column_stack([POINTS, LABELS])
WITH_LABELS = {
    "a.npy": saved(np.save, LABELLED),
    "one.npz": saved(np.savez, anything=LABELLED),
    "two.npz": saved(np.savez, points=POINTS, labels=LABELS),
    "a.ply": ply(LABELLED[:, [0, 4, 1, 2, 3]], ["x", "label", "y", "z", "w"]),
    "a.pts": "\n".join(" ".join(map(str, point)) for point in LABELLED).encode(),
}


@pytest.mark.parametrize("name", WITH_LABELS)
def test_a_cloud_with_labels_in_its_file(name: str) -> None:
    points, labels = read_labelled_cloud(WITH_LABELS[name])
    np.testing.assert_array_equal(points, POINTS)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (FILES["binary.ply"], "'label' is not among them"),
        (saved(np.save, POINTS[:, :2]), "2 columns, expected 3 or more"),
        (saved(np.savez, points=POINTS, labels=LABELS[:3]), "4 points, but 3 labels"),
    ],
)
def test_files_without_labels(file: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_labelled_cloud(file)


LABEL_FILES = {
    "a.npy": saved(np.save, LABELS),
    "column.npy": saved(np.save, LABELS[:, None]),
    "two.npz": saved(np.savez, points=POINTS, labels=LABELS),
    "a.seg": b"2\n0\n0\n1\n",
    "a.txt": b"# part\n2\n0\n0\n1",
}


@pytest.mark.parametrize("name", LABEL_FILES)
def test_files_of_labels(name: str) -> None:
    assert Path(name).suffix in labels_suffixes()
    assert read_labels(LABEL_FILES[name]).tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (FILES["a.npy"], r"no file of labels: it holds float32 \(4, 4\)"),
        (saved(np.save, LABELS[:0]), r"no file of labels: it holds int64 \(0,\)"),
        (b"leg\ntop\n", "no points|no file of labels|damaged"),
        (b"", "empty"),
    ],
)
def test_files_of_something_else(file: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_labels(file)


def test_a_written_cloud_is_read_back(tmp_path: Path) -> None:
    colours = np.arange(12, dtype=np.uint8).reshape(4, 3)
    write_labelled_cloud(tmp_path / "a.ply", POINTS[:, :3], LABELS, colours)
    points, labels = read_labelled_cloud(tmp_path / "a.ply")
    np.testing.assert_array_equal(points, np.column_stack([POINTS[:, :3], colours]))
    np.testing.assert_array_equal(labels, LABELS)
    write_labelled_cloud(tmp_path / "flat.ply", POINTS[:, :2], LABELS, colours)
    assert not read_cloud(tmp_path / "flat.ply")[:, 2].any()
