"""Flow files of strangers: whatever a file holds, there is a flow, or a refusal that costs little."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.mutations import ODD_NUMBERS, mutated
from fuzz.trials import Refused, cases, tried
from perceiver_io.tasks.optical_flow.flow_io import (
    read_flo,
    read_flow,
    read_flow_png,
    write_flo,
    write_flow_png,
)

BUDGET = 32 * 2**20


@pytest.fixture(autouse=True)
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_IO_MOST_DECODED_BYTES", str(BUDGET))


def png(width: int, height: int, data: bytes, *, bits: int = 16, colours: int = 2) -> bytes:
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width & 2**32 - 1, height & 2**32 - 1, bits, colours, 0, 0, 0)),
        (b"IDAT", zlib.compress(data, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in chunks
    )


def _originals(folder: Path) -> list[bytes]:
    generator = torch.Generator().manual_seed(0)
    flow = torch.randint(-(2**12), 2**12, (2, 5, 7), generator=generator) / 64
    valid = torch.rand(5, 7, generator=generator) < 0.8
    write_flo(folder / "a.flo", flow, valid)
    write_flow_png(folder / "a.png", flow, valid)
    raw = np.random.default_rng(0).integers(0, 256, (5, 43), dtype=np.uint8)
    raw[:, 0] = np.arange(5)
    return [(folder / "a.flo").read_bytes(), (folder / "a.png").read_bytes(), png(7, 5, raw.tobytes())]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    folder = tmp_path_factory.mktemp("flow")
    return folder, _originals(folder)


def check(found: Any, content: bytes) -> None:
    height, width = found.valid.shape
    assert found.flow.shape == (2, height, width) and found.flow.dtype == torch.float32
    assert found.flow.isfinite().all() and not found.flow[:, ~found.valid].any()
    if content.startswith(b"PIEH"):
        values = np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2)
        known = (np.abs(values) < 1e9).all(axis=2)
        np.testing.assert_array_equal(found.valid.numpy(), known)
        np.testing.assert_array_equal(found.flow.permute(1, 2, 0).numpy()[known], values[known])


@cases(few=80)
@given(data=st.data())
def test_a_file_is_a_flow_or_refused(
    data: st.DataObject, files: tuple[Path, list[bytes]], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, originals = files
    content = data.draw(st.one_of(mutated(originals), mutated(originals[:1], in_place=True)))
    path = folder / "b"
    path.write_bytes(content)
    capfd.readouterr()
    found = tried(read_flow, path)
    out, errors = capfd.readouterr()  # libpng may complain
    assert not out and all(line.startswith("libpng ") for line in errors.splitlines()), errors
    if isinstance(found, Refused):
        assert "b " in str(found.error)
        return
    check(found, content)
    assert isinstance(tried(read_flow_png, path), Refused) == content.startswith(b"PIEH")
    assert isinstance(tried(read_flo, path), Refused) != content.startswith(b"PIEH")


@cases(few=100)
@given(
    width=st.one_of(*[st.integers(1, 6)] * 3, st.sampled_from(ODD_NUMBERS)),
    height=st.one_of(*[st.integers(1, 6)] * 3, st.sampled_from(ODD_NUMBERS)),
    bits=st.sampled_from([16] * 9 + [8, 1, 3]),
    colours=st.sampled_from([2] * 9 + [0, 3, 6, 9]),
    size=st.one_of(*[st.none()] * 3, st.integers(0, 400)),
    kind=st.sampled_from(["flo", "png"]),
    seed=st.integers(0, 9),
)
@example(width=2**16 - 1, height=2**15, bits=16, colours=2, size=10_000_000, kind="png", seed=0)  # 13 GB
@example(width=255, height=2**31 - 1, bits=16, colours=2, size=1, kind="png", seed=0)
def test_a_header_is_taken_at_its_word_only_within_the_budget(
    width: int,
    height: int,
    bits: int,
    colours: int,
    size: int | None,
    kind: str,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path_factory.getbasetemp() / f"c.{kind}"
    small = max(width, height) < 7
    values = np.random.default_rng(seed).integers(
        0, 2**16, (height, width, 3) if small else (1,), dtype=np.uint16
    )
    if kind == "flo":
        body = values[..., :2].astype("<f4").tobytes()
        content = b"PIEH" + struct.pack("<II", width & 2**32 - 1, height & 2**32 - 1)
        content += body if size is None else bytes(size)
    else:
        rows = (
            values.astype(">u2").tobytes()
            if not small
            else b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        )
        content = png(width, height, rows if size is None else bytes(size), bits=bits, colours=colours)
    path.write_bytes(content)
    capfd.readouterr()
    found = tried(read_flow, path)
    out, errors = capfd.readouterr()  # libpng may complain
    assert not out and all(line.startswith("libpng ") for line in errors.splitlines()), errors
    if not isinstance(found, Refused):
        assert found.valid.shape == (height, width)
    is_good = small and width * height > 0 and size is None
    if is_good and kind == "flo":
        np.testing.assert_array_equal(found.flow.permute(1, 2, 0).numpy(), values[..., :2])
    elif is_good and (bits, colours) == (16, 2):
        known = values[..., 2] > 0
        expected = (values[..., :2].astype(np.float32) - 2**15) / 64
        np.testing.assert_array_equal(found.valid.numpy(), known)
        np.testing.assert_array_equal(found.flow.permute(1, 2, 0).numpy()[known], expected[known])
