"""A colour for each of some classes.

Shape legend: K classes.
"""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

__all__ = ["class_colours"]

_GOLDEN = 0.618034  # turns hues so that neighbours differ


def class_colours(num_classes: int) -> NDArray[np.uint8]:
    """Returns a colour for each class, (K, 3): the first is grey, the others differ in hue, then in lightness."""
    colours: list[tuple[int, ...]] = [(110, 110, 110)]
    for index in range(num_classes - 1):
        value, saturation = (0.95, 0.6, 0.8)[index % 3], (0.75, 0.9, 0.45)[index // 3 % 3]
        rgb = colorsys.hsv_to_rgb(index * _GOLDEN % 1, saturation, value)
        colours.append(tuple(round(255 * part) for part in rgb))
    return np.array(colours, dtype=np.uint8)
