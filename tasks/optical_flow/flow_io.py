"""Files of flow fields: Middlebury's `.flo` and KITTI's 16-bit PNG.

Shape legend: H height, W width.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.extras import require
from perceiver_io.files import writing
from perceiver_io.media.source import check_decoded, open_source, unreadable
from perceiver_io.tasks.optical_flow.checks import check_flow, check_valid

__all__ = ["FlowField", "png_range", "read_flo", "read_flow", "read_flow_png", "write_flo", "write_flow_png"]

# .flo: this number as a float (the bytes say PIEH), width and height as int32, then x and y of each pixel, row by row,
# as floats; little-endian. Values beyond the threshold mean that the flow is not known.
_FLO_MAGIC = 202021.25
_FLO_HEADER = struct.Struct("<fii")
_FLO_MAX_SIDE = 99_999
_FLO_UNKNOWN_FROM = 1e9
_FLO_UNKNOWN = 1e10

# KITTI: red and green are flow * 64 + 2^15, blue is 1 where the flow is known.
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_STEPS = 64.0
_PNG_ZERO = 2**15
_PNG_SIZE_ENDS = 24  # the bytes before it: the signature, what the first chunk is called, width and height
_PNG_HEADER = struct.Struct(">IIBBBBB")


@dataclass(frozen=True, kw_only=True)
class FlowField:
    """What a file of flow holds.

    Attributes:
        flow: (2, H, W) float32, in pixels: x (right), y (down); zero where it is not known.
        valid: (H, W) bool, True where the flow is known.
    """

    flow: Tensor
    valid: Tensor


def read_flow(path: str | os.PathLike[str]) -> FlowField:
    """Reads a `.flo` file or a 16-bit PNG; the file's first bytes say which.

    Args:
        path: The file.

    Raises:
        ValueError: There is no such file, it is of another kind, or it is damaged.
        ImportError: It is a PNG, and torchvision is not installed.
    """
    content = _read(path)
    if content.startswith(_PNG_SIGNATURE):
        return _decode_png(content, path)
    return _decode_flo(content, path)


def read_flo(path: str | os.PathLike[str]) -> FlowField:
    """Reads a `.flo` file.

    Args:
        path: The file.

    Raises:
        ValueError: There is no such file, it is no `.flo` file, it is truncated, or too long.
    """
    return _decode_flo(_read(path), path)


def read_flow_png(path: str | os.PathLike[str]) -> FlowField:
    """Reads a 16-bit PNG of flow.

    Args:
        path: The file.

    Raises:
        ValueError: There is no such file, it is damaged, or no RGB image of 16 bits a channel.
        ImportError: torchvision is not installed.
    """
    return _decode_png(_read(path), path)


def write_flo(path: str | os.PathLike[str], flow: Tensor, valid: Tensor | None = None) -> None:
    """Writes a `.flo` file, whole or not at all.

    Args:
        path: The file.
        flow: (2, H, W) in pixels.
        valid: (H, W) bool, True where the flow is known; everywhere if None.

    Raises:
        ValueError: A shape or type does not fit, the flow is NaN or 10^9 pixels or more where it is known, or a side is
            longer than the format allows.
        OSError: The file cannot be written.
    """
    flow_HW2, known_HW = _checked(flow, valid)
    height, width = known_HW.shape
    if max(height, width) > _FLO_MAX_SIDE:
        raise ValueError(
            f"A .flo file has sides of at most {_FLO_MAX_SIDE} pixels, got {width}x{height}. Write it in parts."
        )
    if (bad := known_HW & ~(np.abs(flow_HW2) < _FLO_UNKNOWN_FROM).all(axis=-1)).any():
        raise ValueError(
            f"The flow of {bad.sum()} pixels is not finite, or 10^9 pixels or more. Mark them as False in valid."
        )
    values = np.where(known_HW[..., None], flow_HW2, _FLO_UNKNOWN).astype("<f4")
    _write(path, _FLO_HEADER.pack(_FLO_MAGIC, width, height) + values.tobytes())


def png_range(flow: Tensor) -> Tensor:
    """Returns where a flow field (2, H, W) fits in a 16-bit PNG, (H, W) bool: from -512 to about 512 pixels."""
    steps = (flow.float() * _PNG_STEPS).round() + _PNG_ZERO
    return ((steps >= 0) & (steps < 2**16)).all(dim=0)  # NaN is neither


def write_flow_png(path: str | os.PathLike[str], flow: Tensor, valid: Tensor | None = None) -> None:
    """Writes a 16-bit PNG of flow, in steps of 1/64 pixel, whole or not at all.

    Args:
        path: The file.
        flow: (2, H, W) in pixels.
        valid: (H, W) bool, True where the flow is known; everywhere if None.

    Raises:
        ValueError: A shape or type does not fit, or the flow is NaN or out of range where it is known.
        OSError: The file cannot be written.
    """
    flow_HW2, known_HW = _checked(flow, valid)
    if (bad := known_HW & ~png_range(flow).cpu().numpy()).any():
        raise ValueError(
            f"The flow of {bad.sum()} pixels is NaN, or not between -512 and 511.98 pixels, which is all that a 16-bit "
            "PNG holds. Mark them as False in valid (png_range says which fit), or write a .flo file."
        )
    steps_HW2 = np.round(np.where(known_HW[..., None], flow_HW2, 0) * _PNG_STEPS) + _PNG_ZERO
    values_HW3 = np.concatenate([steps_HW2 * known_HW[..., None], known_HW[..., None]], axis=-1)
    _write(path, _encode_png(values_HW3.astype(np.uint16)))


def _decode_flo(content: bytes, path: str | os.PathLike[str]) -> FlowField:
    if len(content) < _FLO_HEADER.size:
        raise ValueError(f"{path} is no .flo file: it has {len(content)} bytes, less than a header.")
    magic, width, height = _FLO_HEADER.unpack_from(content)
    if magic != _FLO_MAGIC:
        raise ValueError(
            f"{path} is no .flo file: it begins with {content[:4]!r}, expected b'PIEH' (the number {_FLO_MAGIC})."
        )
    if not (1 <= width <= _FLO_MAX_SIDE and 1 <= height <= _FLO_MAX_SIDE):
        raise ValueError(
            f"{path} is damaged: its header says {width}x{height} pixels, expected sides of 1 to {_FLO_MAX_SIDE}."
        )
    expected = _FLO_HEADER.size + 8 * width * height
    if len(content) != expected:
        state = "truncated" if len(content) < expected else "too long"
        raise ValueError(
            f"{path} is {state}: {width}x{height} pixels take {expected} bytes, it has {len(content)}."
        )
    values = np.frombuffer(content, dtype="<f4", offset=_FLO_HEADER.size).reshape(height, width, 2)
    return _field(values, (np.abs(values) < _FLO_UNKNOWN_FROM).all(axis=-1))  # NaN is not known either


def _decode_png(content: bytes, path: str | os.PathLike[str]) -> FlowField:
    io = require("torchvision.io", extra="image")
    if not content.startswith(_PNG_SIGNATURE):
        raise ValueError(f"{path} is no PNG: it begins with {content[:8]!r}.")
    if len(content) >= _PNG_SIZE_ENDS:
        width, height = struct.unpack_from(">II", content, _PNG_SIZE_ENDS - 8)
        check_decoded(path, width * height * 3 * np.dtype(np.float32).itemsize)
    encoded = torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy())
    try:
        values_3HW = io.decode_png(encoded, mode=io.ImageReadMode.UNCHANGED)
    except RuntimeError as error:
        raise unreadable(path, f"damaged or truncated: {str(error).rstrip('.')}") from error
    if values_3HW.dtype != torch.uint16 or values_3HW.shape[0] != 3:
        raise ValueError(
            f"{path} is no PNG of flow: it has {values_3HW.shape[0]} channels of {8 * values_3HW.itemsize} bits, "
            "expected 3 of 16."
        )
    values_HW3 = values_3HW.permute(1, 2, 0).numpy().astype(np.float32)
    return _field((values_HW3[..., :2] - _PNG_ZERO) / _PNG_STEPS, values_HW3[..., 2] > 0)


def _encode_png(values_HW3: NDArray[np.uint16]) -> bytes:
    """Encodes an RGB image of 16 bits a channel, which neither Pillow nor torchvision can."""
    height, width, _ = values_HW3.shape
    rows = np.frombuffer(values_HW3.astype(">u2").tobytes(), dtype=np.uint8).reshape(height, 6 * width)
    # Filter 1: each byte less that of the pixel to the left, so that smooth flow compresses well.
    filtered = np.ones((height, 1 + 6 * width), dtype=np.uint8)
    filtered[:, 1:] = rows
    filtered[:, 7:] -= rows[:, :-6]
    chunks = (
        (b"IHDR", _PNG_HEADER.pack(width, height, 16, 2, 0, 0, 0)),  # 16 bits, RGB
        (b"IDAT", zlib.compress(filtered.tobytes())),
        (b"IEND", b""),
    )
    return _PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _checked(flow: Tensor, valid: Tensor | None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Returns the flow as (H, W, 2) and where it is known as (H, W)."""
    check_flow(flow)
    check_valid(valid, flow)
    flow_HW2 = flow.detach().cpu().float().permute(1, 2, 0).numpy()
    return flow_HW2, np.ones(flow_HW2.shape[:2], dtype=bool) if valid is None else valid.cpu().numpy()


def _field(flow_HW2: NDArray[np.float32], known_HW: NDArray[np.bool_]) -> FlowField:
    flow_HW2 = np.where(known_HW[..., None], flow_HW2, 0).astype(np.float32)
    flow_2HW = np.ascontiguousarray(np.moveaxis(flow_HW2, -1, 0))
    return FlowField(flow=torch.from_numpy(flow_2HW), valid=torch.from_numpy(np.ascontiguousarray(known_HW)))


def _read(path: str | os.PathLike[str]) -> bytes:
    with open_source(path) as file:
        return file.read()


def _write(path: str | os.PathLike[str], content: bytes) -> None:
    path = Path(path)
    with writing(path) as partial:
        partial.write_bytes(content)
