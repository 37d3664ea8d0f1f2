"""Point clouds and arrays of strangers: whatever a file holds, there are points, or a refusal that costs little."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import plyfile
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.mutations import ODD_NUMBERS, mutated
from fuzz.trials import Refused, cases, tried
from perceiver_io.adapters.cloud_processor import PointCloudProcessor
from perceiver_io.media.clouds import (
    cloud_fault,
    read_cloud,
    read_labelled_cloud,
    read_labels,
    write_labelled_cloud,
)
from perceiver_io.tasks.depth_estimation.data import depth_values, read_depths
from perceiver_io.tasks.point_cloud_segmentation.data import point_classes

BUDGET = 32 * 2**20
POINTS = np.random.default_rng(0).normal(0, 9, (7, 4))
# Whatever bytes a change made of a text, it consists of what numbers are written with.
AS_TEXT = bytes(one if one in b"0123456789.-+e,; \n#" else b"0123456789"[one % 10] for one in range(256))
FACES = np.array([([0, 1, 2],), ([2, 3, 4],)], dtype=[("vertex_indices", "i4", (3,))])


@pytest.fixture(autouse=True)
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_IO_MOST_DECODED_BYTES", str(BUDGET))


def saved(save: Callable[..., None], *args: Any, **kwargs: Any) -> bytes:
    file = io.BytesIO()
    save(file, *args, **kwargs)
    return file.getvalue()


def ply(**options: Any) -> bytes:
    rows = [tuple(point) for point in POINTS]
    vertices = np.array(rows, dtype=[("x", "f4"), ("y", "f8"), ("z", "f4"), ("label", "i4")])
    elements = [plyfile.PlyElement.describe(vertices, "vertex"), plyfile.PlyElement.describe(FACES, "face")]
    file = io.BytesIO()
    plyfile.PlyData(elements, comments=["nothing"], **options).write(file)
    return file.getvalue()


def text(separator: str, end: str = "\n", heading: str = "") -> bytes:
    return (
        heading + end.join(separator.join(f"{value:.6g}" for value in point) for point in POINTS)
    ).encode()


NUMPY = [
    *(saved(np.save, POINTS.astype(kind)) for kind in ("<f4", ">f8", "<i2", "u1", "<f2")),
    saved(np.save, np.asfortranarray(POINTS)),
    saved(np.lib.format.write_array, POINTS, version=(2, 0)),
    saved(np.save, POINTS > 0),
    saved(np.savez, anything=POINTS),
    saved(np.savez_compressed, points=POINTS, labels=np.arange(7)),
]
PLYS = [ply(text=True), ply(byte_order="<"), ply(byte_order=">")]
TEXTS = [
    text(" "),
    text(",", "\r\n", "x,y,z,label\r\n"),
    text("; ", heading="# cloud\n"),
    text("\t") + b"\n\n",
    b"3\n1\n2\n",
]
FILES = st.one_of(
    mutated([*NUMPY, *PLYS, *TEXTS]),
    mutated([*NUMPY[:8], *PLYS], in_place=True),
    mutated(TEXTS).map(lambda content: content.translate(AS_TEXT)),
)


def independently(content: bytes) -> np.ndarray:
    """What NumPy and plyfile read of a file, as they are."""
    if content.startswith((b"\x93NUMPY", b"PK")):
        loaded = np.load(io.BytesIO(content))
        if isinstance(loaded, np.ndarray):
            return loaded
        return loaded[loaded.files[0]] if len(loaded.files) == 1 else loaded["points"]
    if content.startswith(b"ply"):
        (vertices,) = [one for one in plyfile.PlyData.read(io.BytesIO(content)) if one.name == "vertex"]
        names = [one.name for one in vertices.properties]
        order = ["x", "y", "z", *(name for name in names if name not in ("x", "y", "z", "label"))]
        return np.stack([vertices[name] for name in order + ["label"] * ("label" in names)], axis=1)
    lines = [line.partition("#")[0] for line in content.decode().splitlines()]
    words = [
        row
        for line in lines
        if (row := re.split(r"[,;\s]+", line.strip(" ,;\t\f\v\x1c\x1d\x1e\x1f\x85\u2028\u2029"))) != [""]
    ]
    try:
        float(words[0][0])
    except ValueError:
        words = words[1:]
    return np.array([[float(word) for word in row] for row in words])


SIGNALLING = saved(np.save, np.full((2, 3), 0x7FF0_0000_0000_0001, np.uint64).view(np.float64))


@cases(few=150)
@given(content=FILES)
@example(content=SIGNALLING)  # NumPy warned of them
@example(content=saved(np.save, np.full((2, 3), 1e300)))
def test_a_file_is_a_cloud_or_refused(content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """The points are those that NumPy and plyfile read; faces may be damaged, since they are not read."""
    found = tried(read_cloud, content)
    assert capfd.readouterr() == ("", "")
    if isinstance(found, Refused):
        assert cloud_fault(content) is not None
        return
    assert found.dtype == np.float32 and found.ndim == 2 and len(found) and found.shape[1] >= 2
    assert np.isfinite(found).all() and found.flags.c_contiguous and found.flags.writeable
    try:
        expected = independently(content)
    except (plyfile.PlyParseError, UnicodeDecodeError):
        assert content.startswith(b"ply")
        return
    np.testing.assert_array_equal(found, expected.astype(np.float32))


TYPES = ["float", "double", "int", "uchar", "short", "float32", "int64", "half", ""]


@cases(few=100)
@given(
    form=st.sampled_from(["ascii", "binary_little_endian", "binary_big_endian"] * 3 + ["binary"]),
    names=st.one_of(
        st.permutations(["x", "y", "z", "label", "red"]).map(list),
        st.permutations(["x", "z", "y"]).map(list),
        st.lists(st.sampled_from(["x", "y", "z", "label", "\u00e9"]), min_size=2, max_size=5),
    ),
    kinds=st.one_of(
        *[st.lists(st.sampled_from(TYPES[:6]), min_size=6, max_size=6)] * 4,
        st.lists(st.sampled_from(TYPES), min_size=6, max_size=6),
    ),
    is_list=st.sampled_from([None] * 8 + [0, 3]),
    count=st.one_of(*[st.none()] * 4, st.sampled_from([*ODD_NUMBERS, 10**12, -1, 10**30])),
    others=st.lists(st.tuples(st.booleans(), st.sampled_from([0, 1, 2, 10**12]), st.booleans()), max_size=2),
    seed=st.integers(0, 99),
)
@example(  # 10^12 faces, of which there are none, are not read
    form="ascii",
    names=["x", "y", "z"],
    kinds=["float"] * 6,
    is_list=None,
    count=None,
    others=[(False, 10**12, True)],
    seed=0,
)
@example(  # 10^12 of something that has no properties came first
    form="binary_little_endian",
    names=["x", "y", "z"],
    kinds=["float"] * 6,
    is_list=None,
    count=None,
    others=[(True, 10**12, False)],
    seed=0,
)
def test_a_ply_is_its_vertices(
    form: str,
    names: list[str],
    kinds: list[str],
    is_list: int | None,
    count: int | None,
    others: list[tuple[bool, int, bool]],
    seed: int,
) -> None:
    """Whatever its header declares, and whatever else it has."""
    points = np.random.default_rng(seed).integers(0, 100, (4, len(names)))
    codes = {"float": "f4", "double": "f8", "int": "i4", "uchar": "u1", "short": "i2", "float32": "f4"}
    properties = [f"property {kind} {name}" for name, kind in zip(names, kinds, strict=False)]
    if is_list is not None:
        properties.insert(is_list, "property list uchar int many")
    vertices = [f"element vertex {4 if count is None else count}", *properties]
    faces = [
        [f"element face{number} {many}", *["property list uchar int a"] * has]
        for number, (_, many, has) in enumerate(others)
    ]
    before = [face for face, (is_first, *_) in zip(faces, others, strict=True) if is_first]
    after = [face for face, (is_first, *_) in zip(faces, others, strict=True) if not is_first]
    lines = ["ply", f"format {form} 1.0", *chain(*before), *vertices, *chain(*after), "end_header", ""]
    values = [
        b"".join(
            np.array(value).astype((">" if "big" in form else "<") + codes.get(kind, "f4")).tobytes()
            for value, kind in zip(row, kinds, strict=False)
        )
        for row in points
    ]
    body = (
        b"\n".join(b" ".join(b"%d" % value for value in row) for row in points) + b"\n"
        if form == "ascii"
        else b"".join(values)
    )
    found = tried(read_cloud, "\n".join(lines).encode() + body)
    wrong = form == "binary" or is_list is not None or not set(kinds[: len(names)]) <= codes.keys()
    if wrong or len(set(names)) < len(names) or not set("xyz") <= set(names) or not "".join(names).isascii():
        assert isinstance(found, Refused)
    elif count is None and not any(many and is_first for is_first, many, _ in others):
        order = sorted(
            range(len(names)),
            key=lambda index: ("xyz".find(names[index]) % 9, names[index] == "label", index),
        )
        np.testing.assert_array_equal(found, points[:, order])


@cases(few=100)
@given(
    descr=st.one_of(
        st.sampled_from(["<f4", ">f8", "<i2", "|u1", "<f2"]),
        st.sampled_from(["<f4", ">f8", "<i2", "|u1", "<f2"]),
        st.sampled_from(["|b1", "|O", "<U0", "|V0", "<c8", "<M8[s]", "|S2000000000", "q\\d"]),
    ),
    shape=st.one_of(
        *[st.tuples(st.integers(1, 4), st.integers(2, 3))] * 3,
        st.lists(st.sampled_from([0, 1, 2, 3, 4, 12, -1, 2**31, 2**62, 2**63, 10**30]), max_size=4).map(
            tuple
        ),
        st.sampled_from(["None", "(4, 3", "(4., 3)", "(True, 4, 3)", "(" * 200 + ")" * 200, "[4, 3]", "{}"]),
    ),
    order=st.sampled_from([False, True, True, False, "None"]),
    version=st.sampled_from([1, 1, 1, 2, 2, 3, 9]),
    size=st.sampled_from([0, 12, 48, 96, 96]),
    name=st.sampled_from([None, "points", "labels", "x" * 300, "\x1b[2J"]),
)
def test_a_numpy_file_is_its_array(
    descr: str, shape: Any, order: Any, version: int, size: int, name: str | None
) -> None:
    """Alone, or in an archive; what its header declares takes no memory."""
    header = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    body = (np.arange(size) % 100).astype(np.uint8).tobytes()
    content = b"\x93NUMPY" + bytes([version, 0]) + length + header + body
    expected: Any = None
    if (
        descr in ("<f4", ">f8", "<i2", "|u1", "<f2")
        and isinstance(shape, tuple)
        and len(shape) == 2
        and order in (True, False)
    ):
        rows, columns = shape
        if version < 3 and rows > 0 and columns > 1 and rows * columns * np.dtype(descr).itemsize <= size:
            expected = np.frombuffer(body, descr)[: rows * columns].reshape(
                shape, order="F" if order else "C"
            )
    if name is not None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{name}.npy", content)
            if name in ("points", "labels"):
                archive.writestr("other.npy", b"nothing")
        content = file.getvalue()
        expected = None if name == "labels" else expected
    for read in (read_cloud, read_depths, read_labels):
        found = tried(read, content)
        if read is not read_labels and not (read is read_depths and name in ("points", "labels")):
            is_cloud = expected is not None and bool((np.abs(expected.astype(float)) < 1e38).all())
            if read is read_cloud:
                assert isinstance(found, Refused) != is_cloud
            if is_cloud:
                np.testing.assert_array_equal(
                    found, expected.astype(np.float32) if read is read_cloud else expected
                )
        if isinstance(found, np.ndarray):
            depths = tried(depth_values, found, unit=0.5, unknown=3.0)
            if isinstance(depths, torch.Tensor):
                known = (np.abs(found.astype(float)) < 3.4028235e38) & (found != 3)
                np.testing.assert_array_equal(depths.isnan().numpy(), ~known)


def _labelled() -> list[bytes]:
    labels = np.arange(7) % 3
    return [
        saved(np.savez, points=POINTS, labels=labels),
        saved(np.save, labels),
        saved(np.save, labels[:, None].astype(np.uint8)),
        saved(np.save, np.column_stack([POINTS, labels])),
        ply(text=True),
        b"\n".join(b"%d" % label for label in labels),
        text(" ") + b"\n",
    ]


@cases(few=80)
@given(
    content=st.one_of(mutated(_labelled(), most=1), mutated(_labelled(), in_place=True)),
    unknown=st.lists(st.sampled_from([-1, 0, 2, 255, 2**62]), max_size=2),
    num_classes=st.sampled_from([None, 3, 1]),
)
def test_labels_are_classes_or_refused(content: bytes, unknown: list[int], num_classes: int | None) -> None:
    """A class for each point, as the numbers of the file say, and nothing else."""
    labels, labelled = tried(read_labels, content), tried(read_labelled_cloud, content)
    if not isinstance(labelled, Refused):
        points, labels = labelled
        assert len(points) == len(labels) and points.shape[1] >= 2
    if isinstance(labels, Refused):
        return
    assert labels.ndim == 1 and len(labels)
    classes = tried(point_classes, labels, num_points=len(labels), unknown=unknown, num_classes=num_classes)
    if not isinstance(classes, Refused):
        numbers = [int(label) for label in labels.tolist()]
        assert numbers == labels.tolist()
        is_known = classes != -100
        assert [number for number, known in zip(numbers, is_known, strict=True) if known] == classes[
            is_known
        ].tolist()
        assert {number for number, known in zip(numbers, is_known, strict=True) if not known} <= {
            *unknown,
            -100,
        }
        assert (classes[is_known] >= 0).all() and (
            num_classes is None or (classes[is_known] < num_classes).all()
        )


@cases(few=60)
@given(
    content=st.one_of(mutated([*NUMPY[:6], *TEXTS[:4]], in_place=True), mutated(TEXTS, most=1)),
    features=st.integers(0, 1),
    most=st.sampled_from([None, 1, 5, 7, 100]),
)
def test_a_processor_brings_clouds_to_one_size(content: bytes, features: int, most: int | None) -> None:
    processor = PointCloudProcessor(num_features=features, max_points=most)
    found, cloud = tried(processor.prepare, content), tried(read_cloud, content)
    if isinstance(cloud, Refused) or cloud.shape[1] < 3 + features:
        assert isinstance(found, Refused)
        return
    if isinstance(found, Refused):
        return
    assert found.shape == (min(len(cloud), most or len(cloud)), 3 + features)
    assert found.isfinite().all()
    whole = PointCloudProcessor(num_features=features).prepare(content)
    distances = whole[:, :3].double().norm(dim=1)
    assert abs(float(distances.max()) - 1) < 1e-5 or np.ptp(cloud[:, :3], axis=0).max() == 0


def _bombs() -> dict[str, bytes]:
    zeros = np.zeros((2_000_000, 3))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("points.npy", saved(np.save, zeros[:9]))
    header = "ply\nformat {} 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    return {
        "array": saved(np.savez_compressed, points=zeros),
        "bzip2": file.getvalue(),
        "vertices": header.format("ascii", 10**12).encode() + b"1 2 3\n",
        "binary": header.format("binary_little_endian", 10**12).encode() + bytes(12),
        "names": saved(np.savez, **{f"a{index}": zeros[0] for index in range(3000)}),
    }


@pytest.mark.parametrize("name", _bombs())
def test_what_would_fill_the_memory_is_refused(name: str) -> None:
    content = _bombs()[name]
    assert len(content) < 1_000_000
    for read in (read_cloud, read_labels, read_labelled_cloud, read_depths):
        assert isinstance(tried(read, content), Refused)


def test_what_declares_a_large_shape_is_refused() -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000, 3), }".ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(48)
    found = tried(read_cloud, content)
    assert isinstance(found, Refused)
    assert "smaller than requested" in str(found.error)


@pytest.mark.parametrize("content", [SIGNALLING, saved(np.save, np.full((2, 3), 1e300))])
def test_depths_that_float32_lacks_are_not_known(content: bytes) -> None:
    """NumPy warned of them."""
    assert depth_values(read_depths(content), unit=1.0, unknown=None).isnan().all()


def test_faces_are_not_read(tmp_path: Any) -> None:
    """A million of them took seconds, and one that is cut off made a cloud unreadable."""
    write_labelled_cloud(tmp_path / "a.ply", POINTS[:, :3], np.arange(7), np.zeros((7, 3), np.uint8))
    content = (tmp_path / "a.ply").read_bytes()
    faces = b"element face 1000000\nproperty list uchar int vertex_indices\nend_header\n"
    found = tried(read_cloud, content.replace(b"end_header\n", faces) + b"\3")
    np.testing.assert_array_equal(found, read_cloud(content))
