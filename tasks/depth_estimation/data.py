"""Images with a depth for each pixel: made-up scenes, and the files that depths are kept in.

Shape legend: H height, W width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.data import Content, LabelledRows, file_feature
from perceiver_io.media.arrays import is_numpy_file, read_array
from perceiver_io.media.images import open_image
from perceiver_io.media.source import Source, UnreadableError, fault_of, open_source, unreadable

__all__ = ["DEPTHS", "EMBEDDED", "depth_values", "plain"]

_SIZE, _NUM_SCENES = 64, 600
_FOCAL = 60.0  # pixels
_NEAREST, _FARTHEST = 2.5, 20.0  # metres, of what stands on the plain


def read_depths(source: Source) -> NDArray[Any]:
    """Reads a file of numbers: `.npy`, `.npz` with one array, or an image of one channel, such as a 16-bit PNG.

    Raises:
        UnreadableError: It is none of these, or damaged.
    """
    with open_source(source) as file:
        if not is_numpy_file(file.read(6)):
            return np.asarray(open_image(source))
        file.seek(0)
        try:
            return read_array(file, source)[0]
        except UnreadableError:
            raise
        except Exception as error:  # readers raise what they like
            raise unreadable(source, f"damaged ({str(error).rstrip('.')})") from error


DEPTHS = Content(
    column="depth",
    noun="depths",
    feature=file_feature,
    suffixes=lambda: {".npy", ".npz", ".png", ".tif", ".tiff"},
    fault=lambda source: fault_of(read_depths, source),
    decode=read_depths,
    stored=lambda path: {"path": path, "bytes": None},
)


def depth_values(values: Any, *, unit: float, unknown: float | None) -> Tensor:
    """Reads the depths of an image.

    Args:
        values: (H, W) numbers.
        unit: What one of them stands for.
        unknown: The number that stands for an unknown depth, besides NaN and infinities.

    Returns:
        (H, W) float32, NaN where a depth is not known.

    Raises:
        ValueError: They have other axes, or are no numbers.
    """
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "uif" or array.size == 0:
        raise ValueError(f"Depths must be one number a pixel, got {array.dtype} {array.shape}.")
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is infinite, which is not known
        depth_HW = torch.from_numpy(array.astype(np.float32))
    is_known_HW = depth_HW.isfinite() if unknown is None else depth_HW.isfinite() & (depth_HW != unknown)
    return torch.where(is_known_HW, depth_HW * unit, float("nan"))


def plain() -> LabelledRows:
    """Returns 600 views of a plain with three to seven boxes and balls on it, 64 x 64 pixels, with depths in metres.

    Things have any size and colour: how far one is shows only where it meets the ground, and what it hides. The horizon
    differs from view to view, and with it what a row of pixels means. The sky has no depth.
    """
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(_NUM_SCENES):
        image, depth = _view(rng)
        rows.append({"image": image, "depth": depth})
    return LabelledRows(rows, ())


EMBEDDED = {"plain": plain}


def _view(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    row, column = np.mgrid[:_SIZE, :_SIZE].astype(np.float64)
    horizon, height = rng.uniform(10, 26), rng.uniform(1.2, 1.8)
    below = np.maximum(row + 0.5 - horizon, 1e-9)
    depth = np.where(row + 0.5 > horizon, height * _FOCAL / below, np.inf)
    depth[depth > 4 * _FARTHEST] = np.inf  # sky, and what lies at the horizon
    ground, sky = rng.uniform(0.2, 0.8, (2, 3))
    canvas = np.where(np.isfinite(depth)[..., None], ground, sky)
    for distance in sorted(rng.uniform(_NEAREST, _FARTHEST, rng.integers(3, 8)), reverse=True):
        side = rng.uniform(0.3, 1.6)
        foot = horizon + height * _FOCAL / distance  # the row where it stands
        half = side / 2 * _FOCAL / distance
        middle = rng.uniform(0, _SIZE)
        if rng.random() < 0.5:
            inside = (
                (np.abs(column + 0.5 - middle) < half) & (row + 0.5 < foot) & (row + 0.5 > foot - 2 * half)
            )
            light = np.full(row.shape, rng.uniform(0.7, 1.0))
        else:
            across, up = (column + 0.5 - middle) / half, (row + 0.5 - foot + half) / half
            inside = across**2 + up**2 < 1
            light = 0.5 + 0.5 * np.sqrt(np.clip(1 - across**2 - up**2, 0, 1))
        canvas[inside] = (light[..., None] * rng.uniform(0.1, 1, 3))[inside]
        depth[inside] = distance
    canvas += rng.normal(0, 0.03, canvas.shape)
    pixels = np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    return pixels, np.where(np.isfinite(depth), depth, np.nan).astype(np.float32)
