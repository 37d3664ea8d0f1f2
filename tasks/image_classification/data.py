"""Labelled images: scikit-learn's digits, folders, tables, the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from perceiver_io.data import Content
from perceiver_io.data.sources import labelled_dataset
from perceiver_io.extras import require
from perceiver_io.media.images import image_fault, image_suffixes

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["EMBEDDED", "IMAGES"]


def _feature(**settings: Any) -> Any:
    return require("datasets", extra="train").Image(**settings)


IMAGES = Content(column="image", noun="images", feature=_feature, suffixes=image_suffixes, fault=image_fault)


def _digits() -> Dataset:
    """Returns the digits of scikit-learn, 8 x 8 pixels, with their 17 grey levels spread over 0 to 255."""
    digits = require("sklearn.datasets", extra="train").load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    names = [str(name) for name in digits.target_names]
    return labelled_dataset({IMAGES: list(pixels)}, digits.target.tolist(), names)


EMBEDDED = {"digits": _digits}
