"""Images without maps or labels: crops of two photographs, scanned digits, and any files."""

from __future__ import annotations

from typing import Any

from perceiver_io.data import LabelledRows
from perceiver_io.extras import require
from perceiver_io.tasks.image_classification.data import EMBEDDED as DIGITS

__all__ = ["EMBEDDED", "photo_crops"]

_SIZE = 32
_PHOTOGRAPHS = ("china.jpg", "flower.jpg")


def photo_crops() -> LabelledRows:
    """Returns 520 crops of 32 x 32 pixels of scikit-learn's photographs of a temple and of a flower.

    They lie side by side, so that no pixel is in two of them; the label is the photograph.
    """
    load = require("sklearn.datasets", extra="train").load_sample_image
    rows: list[dict[str, Any]] = []
    for label, name in enumerate(_PHOTOGRAPHS):
        pixels_HWF = load(name)
        height, width = pixels_HWF.shape[:2]
        rows += [
            {"image": pixels_HWF[top : top + _SIZE, left : left + _SIZE], "label": label}
            for top in range(0, height - _SIZE + 1, _SIZE)
            for left in range(0, width - _SIZE + 1, _SIZE)
        ]
    return LabelledRows(rows, [name.partition(".")[0] for name in _PHOTOGRAPHS])


EMBEDDED = {"photo-crops": photo_crops, **DIGITS}
