"""Classes of pixels in colours: over an image, and true ones beside predicted ones.

Shape legend: F image channels, H height, W width, K classes, N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.media.images import write_image
from perceiver_io.pictures.class_colours import class_colours
from perceiver_io.pictures.sheet import Sheet, scaled
from perceiver_io.tasks.dense.losses import UNKNOWN

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["draw_segmentation", "overlay"]

_TILE = 176
_KEY, _PER_LINE = 18, 4


def overlay(
    pixels_FHW: Tensor, classes_HW: NDArray[np.int64], colours_K3: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Lays the colours of classes over an image.

    Args:
        pixels_FHW: uint8, grey or RGB.
        classes_HW: Class indices; what is `UNKNOWN` stays as it is.
        colours_K3: The colours.

    Returns:
        (H, W, 3) RGB values.
    """
    image_HW3 = _rgb(pixels_FHW).astype(np.float32)
    known_HW = classes_HW != UNKNOWN
    colour_HW3 = colours_K3[np.where(known_HW, classes_HW, 0)]
    mixed_HW3 = np.where(known_HW[..., None], 0.4 * image_HW3 + 0.6 * colour_HW3, image_HW3)
    return np.round(mixed_HW3).astype(np.uint8)


def draw_segmentation(
    images: Sequence[Tensor],
    true_NHW: NDArray[np.int64],
    predicted_NHW: NDArray[np.int64],
    class_names: Sequence[str],
    path: Path,
) -> None:
    """Draws images with their true and their predicted classes, and the key to the colours.

    Args:
        images: (F, H, W), uint8.
        true_NHW: True classes, `UNKNOWN` where there are none.
        predicted_NHW: What a model gives.
        class_names: Names of the classes.
        path: The PNG to write.
    """
    colours_K3 = class_colours(len(class_names))
    sheet = Sheet()
    for place, (pixels_FHW, true_HW, found_HW) in enumerate(
        zip(images, true_NHW, predicted_NHW, strict=True)
    ):
        panels = [
            _panel(_rgb(pixels_FHW)),
            _panel(
                np.where((true_HW == UNKNOWN)[..., None], np.uint8(0), colours_K3[np.maximum(true_HW, 0)])
            ),
            _panel(colours_K3[found_HW]),
            _panel(
                np.where(
                    ((true_HW == UNKNOWN) | (true_HW == found_HW))[..., None], _rgb(pixels_FHW) // 3, 255
                )
            ),
        ]
        captions = ["image", "true classes", "predicted", "wrong"] if place == 0 else []
        sheet.row(panels, captions=captions)
    names = list(class_names)
    for start in range(0, len(names), _PER_LINE):
        part = range(start, min(start + _PER_LINE, len(names)))
        keys = [_key(colours_K3[index]) for index in part]
        sheet.row(keys, captions=[names[index][:24] for index in part])
    write_image(path, sheet.picture())


def _rgb(pixels_FHW: Tensor) -> NDArray[np.uint8]:
    rgb: NDArray[np.uint8] = pixels_FHW.expand(3, -1, -1).permute(1, 2, 0).numpy()
    return rgb


def _panel(pixels_HW3: NDArray[np.uint8]) -> Image:
    height, width = pixels_HW3.shape[:2]
    factor = _TILE / max(height, width)
    return scaled(pixels_HW3, (max(1, round(width * factor)), max(1, round(height * factor))))


def _key(colour_3: NDArray[np.uint8]) -> Image:
    return scaled(np.broadcast_to(colour_3, (_KEY, _TILE, 3)), (_TILE, _KEY))
