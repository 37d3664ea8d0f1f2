"""Files of flow: read back, read by others, and refused where they are damaged."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from perceiver_io.tasks.optical_flow.flow_io import (
    png_range,
    read_flo,
    read_flow,
    read_flow_png,
    write_flo,
    write_flow_png,
)


def example() -> tuple[Tensor, Tensor]:
    """A flow of 5x7 pixels in steps of 1/64, three of them unknown."""
    flow = torch.randint(-(2**15), 2**15, (2, 5, 7)) / 64
    valid = torch.ones(5, 7, dtype=torch.bool)
    valid[0, 0] = valid[2, 3] = valid[4, 6] = False
    return flow, valid


def test_flo_by_hand(tmp_path: Path) -> None:
    flow = torch.tensor([[[1.0, 2.0, 3.0]], [[-1.0, -2.0, 0.5]]])
    write_flo(tmp_path / "a.flo", flow)
    expected = b"PIEH" + struct.pack("<ii6f", 3, 1, 1, -1, 2, -2, 3, 0.5)
    assert (tmp_path / "a.flo").read_bytes() == expected
    assert torch.equal(read_flo(tmp_path / "a.flo").flow, flow)
    assert os.listdir(tmp_path) == ["a.flo"]


def test_flo_as_numpy_reads_it(tmp_path: Path) -> None:
    """The usual few lines of other tools."""
    flow, valid = torch.randn(2, 5, 7), example()[1]
    write_flo(tmp_path / "a.flo", flow, valid)
    with (tmp_path / "a.flo").open("rb") as file:
        assert np.fromfile(file, np.float32, count=1)[0] == np.float32(202021.25)
        width, height = np.fromfile(file, np.int32, count=2)
        values = np.fromfile(file, np.float32).reshape(height, width, 2)
    assert (height, width) == (5, 7)
    np.testing.assert_array_equal(values[valid.numpy()], flow.permute(1, 2, 0)[valid].numpy())
    assert (values[~valid.numpy()] > 1e9).all()


@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    values=st.lists(st.floats(-500, 500, width=32), min_size=72, max_size=72),
    known=st.lists(st.booleans(), min_size=36, max_size=36),
)
def test_both_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, values: list[float], known: list[bool]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    flow = torch.tensor(values)[: 2 * height * width].reshape(2, height, width)
    valid = torch.tensor(known)[: height * width].reshape(height, width)
    write_flo(folder / "a.flo", flow, valid)
    write_flow_png(folder / "a.png", flow, valid)
    exact, rounded = read_flow(folder / "a.flo"), read_flow(folder / "a.png")
    assert torch.equal(exact.valid, valid) and torch.equal(rounded.valid, valid)
    assert torch.equal(exact.flow, torch.where(valid, flow, 0.0))
    assert ((rounded.flow - exact.flow).abs() <= 1 / 128).all()


def test_other_libraries_read_the_png(tmp_path: Path) -> None:
    """FFmpeg decodes the 16-bit values that KITTI prescribes."""
    flow, valid = example()
    write_flow_png(tmp_path / "a.png", flow, valid)
    with av.open(str(tmp_path / "a.png")) as container:
        frame = next(container.decode(video=0))
        assert frame.format.name == "rgb48be"
        values = frame.to_ndarray(format="rgb48be")
    flows = np.moveaxis(flow.numpy(), 0, -1) * 64 + 2**15
    known = valid.numpy()
    np.testing.assert_array_equal(values[known][:, :2], flows[known])
    np.testing.assert_array_equal(values[..., 2], known)
    assert not values[~known].any()
    assert torch.equal(read_flow_png(tmp_path / "a.png").flow, torch.where(valid, flow, 0.0))


def test_png_of_another_writer(tmp_path: Path) -> None:
    """FFmpeg filters rows its own way."""
    values = np.random.default_rng(0).integers(0, 2**16, (20, 30, 3), dtype=np.uint16)
    values[..., 2] = values[..., 2] > 30000
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.options = 30, 20, "rgb48be", {"pred": "mixed"}
    encoder.time_base = Fraction(1)
    packets = encoder.encode(av.VideoFrame.from_ndarray(values, format="rgb48be")) + encoder.encode(None)
    (tmp_path / "a.png").write_bytes(b"".join(bytes(packet) for packet in packets))
    field = read_flow_png(tmp_path / "a.png")
    known = values[..., 2] > 0
    np.testing.assert_array_equal(field.valid.numpy(), known)
    expected = (values[..., :2].astype(np.float32) - 32768) / 64 * known[..., None]
    np.testing.assert_array_equal(field.flow.permute(1, 2, 0).numpy(), expected)


def test_smooth_flow_compresses(tmp_path: Path) -> None:
    y, x = torch.meshgrid(torch.arange(100.0), torch.arange(200.0), indexing="ij")
    write_flow_png(tmp_path / "a.png", torch.stack([x / 4, y / 4]))
    assert (tmp_path / "a.png").stat().st_size < 6 * 100 * 200 / 20


def test_range_of_png() -> None:
    values = torch.tensor([-512.0, -512.01, 511.984375, 512.0, torch.nan, torch.inf, 0.0])
    assert png_range(torch.stack([values, 0 * values[-1].expand(7)])[:, None]).tolist() == [
        [True, False, True, False, False, False, True]
    ]


def test_whatever_is_not_known_may_be_anything(tmp_path: Path) -> None:
    flow = torch.tensor([torch.nan, 2e9, -torch.inf, 1.0]).expand(2, 1, 4)
    valid = torch.tensor([[False, False, False, True]])
    for write, name in ((write_flo, "a.flo"), (write_flow_png, "a.png")):
        write(tmp_path / name, flow, valid)
        field = read_flow(tmp_path / name)
        assert field.valid.tolist() == valid.tolist()
        assert field.flow.tolist() == [[[0.0, 0.0, 0.0, 1.0]]] * 2


def test_unknown_flow_of_other_writers(tmp_path: Path) -> None:
    content = b"PIEH" + struct.pack("<ii6f", 3, 1, float("nan"), 1, 1.6e9, 1.6e9, 3, 4)
    (tmp_path / "a.flo").write_bytes(content)
    field = read_flo(tmp_path / "a.flo")
    assert field.valid.tolist() == [[False, False, True]]
    assert field.flow[:, 0, 2].tolist() == [3.0, 4.0] and field.flow.sum() == 7


@pytest.mark.parametrize(
    ("value", "write", "message"),
    [
        (float("nan"), write_flo, "flow of 1 pixels is not finite"),
        (float("inf"), write_flo, "flow of 1 pixels is not finite"),
        (-1e9, write_flo, r"10\^9 pixels or more"),
        (float("nan"), write_flow_png, "flow of 1 pixels is NaN"),
        (512.0, write_flow_png, "not between -512 and 511.98 pixels"),
        (-513.0, write_flow_png, "or write a .flo file"),
    ],
)
def test_flow_that_cannot_be_written(
    value: float, write: Callable[[Path, Tensor], None], message: str, tmp_path: Path
) -> None:
    flow = torch.zeros(2, 3, 4)
    flow[1, 2, 0] = value
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a", flow)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("flow", "valid", "message"),
    [
        (torch.zeros(3, 4, 5), None, r"must be \(2, height, width\), .* got torch.float32 \(3, 4, 5\)"),
        (torch.zeros(1, 2, 4, 5), None, r"\(1, 2, 4, 5\)"),
        (torch.zeros(2, 0, 5), None, r"\(2, 0, 5\)"),
        (torch.zeros(2, 4, 5, dtype=torch.int64), None, "floating point"),
        (np.zeros((2, 4, 5)), None, "must be a tensor, got ndarray"),
        (torch.zeros(2, 4, 5), torch.ones(4, 5), r"must be bool \(4, 5\) .* got torch.float32"),
        (torch.zeros(2, 4, 5), torch.ones(5, 4, dtype=torch.bool), r"got torch.bool \(5, 4\)"),
        (torch.zeros(2, 4, 5), True, "got bool"),
    ],
)
@pytest.mark.parametrize("write", [write_flo, write_flow_png])
def test_wrong_shapes_and_types(
    flow: Tensor, valid: Tensor | None, message: str, write: Callable[..., None], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a", flow, valid)


def flo(width: int, height: int, num_values: int, magic: bytes = b"PIEH") -> bytes:
    return magic + struct.pack("<ii", width, height) + bytes(4 * num_values)


def png(*, depth: int = 16, colour: int = 2, cut: int = 0) -> bytes:
    channels = {0: 1, 2: 3, 6: 4}[colour]
    row = bytes(1 + 4 * channels * depth // 8)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 2, depth, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(2 * row)),
        (b"IEND", b""),
    ]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return content[: len(content) - cut]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PIEH\0\0\0\0", "has 8 bytes, less than a header"),
        (flo(3, 2, 12, magic=b"HEIP"), "begins with b'HEIP', expected b'PIEH'"),
        (flo(0, 2, 0), "header says 0x2 pixels"),
        (flo(3, -2, 12), "header says 3x-2 pixels"),
        (flo(100_000, 1, 12), "header says 100000x1 pixels"),
        (flo(3, 2, 11), "truncated: 3x2 pixels take 60 bytes, it has 56"),
        (flo(3, 2, 13), "too long: 3x2 pixels take 60 bytes, it has 64"),
        (png(depth=8), "3 channels of 8 bits, expected 3 of 16"),
        (png(colour=0), "1 channels of 16 bits"),
        (png(colour=6), "4 channels of 16 bits"),
        (png(cut=20), "damaged or truncated"),
        (png(cut=40), "damaged or truncated"),
        (png()[:8], "damaged or truncated"),
    ],
)
def test_damaged_files(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_flow(tmp_path / "a")
    assert str(tmp_path / "a") in str(caught.value)


def test_made_up_png_is_valid(tmp_path: Path) -> None:
    """The bytes above are damaged only where they are meant to be."""
    (tmp_path / "a.png").write_bytes(png())
    field = read_flow(tmp_path / "a.png")
    assert field.flow.shape == (2, 2, 4) and not field.valid.any()


def test_wrong_kind_and_no_file(tmp_path: Path) -> None:
    flow, _ = example()
    write_flo(tmp_path / "a.flo", flow)
    write_flow_png(tmp_path / "a.png", flow)
    with pytest.raises(ValueError, match="is no PNG"):
        read_flow_png(tmp_path / "a.flo")
    with pytest.raises(ValueError, match=r"is no \.flo file"):
        read_flo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"missing.flo is missing"):
        read_flow(tmp_path / "missing.flo")
    with pytest.raises(ValueError, match=r"not readable \(Is a directory"):
        read_flow(tmp_path)


@pytest.mark.parametrize("write", [write_flo, write_flow_png])
def test_whole_or_not_at_all(
    write: Callable[[Path, Tensor], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def half(file: Path, content: bytes) -> int:
        with open(file, "wb") as opened:
            opened.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        write(path, example()[0])
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a", b"old")]
    with pytest.raises(ValueError, match="There is no folder"):
        monkeypatch.undo()
        write(tmp_path / "no" / "a", example()[0])
