"""Images with masks of classes: canvases with scanned digits, and the masks of files.

Shape legend: H height, W width.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.data import Content, LabelledRows
from perceiver_io.extras import require
from perceiver_io.media.images import image_fault, image_suffixes
from perceiver_io.tasks.dense.losses import UNKNOWN

__all__ = ["EMBEDDED", "MASKS", "digit_canvases", "mask_classes"]

_SIZE, _NUM_CANVASES, _NUM_PARTS = 64, 2000, 10
_INK = 6 / 16  # what is darker is paper
_OVERLAP = 0.15  # a digit that would stand more than so on others is left out


def _feature(**settings: Any) -> Any:
    return require("datasets", extra="train").Image(**settings)


MASKS = Content(column="mask", noun="masks", feature=_feature, suffixes=image_suffixes, fault=image_fault)


def digit_canvases() -> LabelledRows:
    """Returns 2,000 canvases of 64 x 64 pixels with one to five of scikit-learn's scanned digits, and their masks.

    Digits are enlarged 2 to 3 times, touch or cover each other at their edges, and are lighter or darker than the
    ground, which gets lighter in some direction, with noise. A pixel's class is the digit whose ink it is, or "paper".
    The canvases of a group have digits of their own: what is tested on was not written on any canvas of training.
    """
    digits = require("sklearn.datasets", extra="train").load_digits()
    rng = np.random.default_rng(0)
    parts = np.array_split(np.arange(len(digits.images)), _NUM_PARTS)
    rows, groups = [], []
    for index in range(_NUM_CANVASES):
        part = index % _NUM_PARTS
        image, mask = _canvas(digits.images / 16, digits.target, parts[part], rng)
        rows.append({"image": image, "mask": mask})
        groups.append(part)
    return LabelledRows(rows, ("paper", *"0123456789"), groups=groups)


EMBEDDED = {"digit-canvases": digit_canvases}


def mask_classes(mask: Any, *, unknown: Collection[int]) -> Tensor:
    """Reads a mask.

    Args:
        mask: A Pillow image of one channel, of grey levels or of a palette, or an array (H, W): class indices.
        unknown: Values that stand for no class.

    Returns:
        (H, W) int64, `UNKNOWN` where there is no class.

    Raises:
        ValueError: It has several channels, or no integers.
    """
    values = np.asarray(mask)
    if values.ndim != 2 or values.dtype.kind not in "uib" or values.size == 0:
        raise ValueError(
            f"A mask must hold one class index a pixel, got {values.dtype} {values.shape}. Convert colours to the "
            "indices of their classes."
        )
    classes_HW = torch.from_numpy(values.astype(np.int64))
    if unknown:
        is_unknown = torch.isin(classes_HW, torch.tensor(sorted(unknown)))
        classes_HW = torch.where(is_unknown, UNKNOWN, classes_HW)
    return classes_HW


def _canvas(
    images: NDArray[np.float64],
    targets: NDArray[np.int64],
    choice: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    pil = require("PIL.Image", extra="train")
    down, right = np.mgrid[:_SIZE, :_SIZE] / _SIZE - 0.5
    angle, paper = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.75)
    canvas = paper + rng.uniform(0, 0.3) * (down * np.sin(angle) + right * np.cos(angle))
    mask = np.zeros((_SIZE, _SIZE), np.uint8)
    taken = np.zeros((_SIZE, _SIZE), bool)
    for _ in range(rng.integers(2, 6)):
        digit = rng.choice(choice)
        side = int(rng.integers(16, 25))
        top, left = rng.integers(0, _SIZE - side + 1, 2)
        window = (slice(top, top + side), slice(left, left + side))
        if taken[window].mean() > _OVERLAP:
            continue
        taken[window] = True
        enlarged = pil.fromarray(images[digit].astype(np.float32)).resize(
            (side, side), pil.Resampling.BICUBIC
        )
        ink = np.clip(np.asarray(enlarged), 0, 1)
        grey = paper + rng.choice([-1, 1]) * rng.uniform(0.25, 0.45)
        canvas[window] = canvas[window] * (1 - ink) + grey * ink
        mask[window][ink > _INK] = targets[digit] + 1
    canvas += rng.normal(0, 0.05, canvas.shape)
    return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8), mask
