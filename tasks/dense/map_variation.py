"""Images and their maps, varied together at random for training.

Shape legend: F image channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perceiver_io.component import ComponentConfig
from perceiver_io.extras import require
from perceiver_io.tasks.modalities.variation import check_fractions

__all__ = ["MapAugmentation", "MapVariation"]


@dataclass(frozen=True, kw_only=True)
class MapAugmentation(ComponentConfig):
    """How training images are varied, and their maps with them.

    Attributes:
        horizontal_flip: Mirror every second image; not where left and right matter.
        rotation: Largest angle, in degrees, either way.
        translation: Largest shift, as a part of the width and of the height.
        scaling: Largest change of size: 0.25 is from 0.75 to 1.25 times the size.
        brightness: Largest change of brightness, contrast and saturation: 0.2 is from 0.8 to 1.2 times.

    What comes into a picture from outside of it is black, and its map is unknown there.
    """

    horizontal_flip: bool = False
    rotation: float = 5.0
    translation: float = 0.1
    scaling: float = 0.2
    brightness: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fractions(self, "translation", "scaling", "brightness")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation is {self.rotation}, expected degrees from 0 to 180.")


class MapVariation:
    """Varies an image and its map together. Random numbers are of PyTorch's global generator.

    Args:
        settings: What is varied.
        unknown: What the map holds where nothing is known.
    """

    def __init__(self, settings: MapAugmentation, *, unknown: float) -> None:
        transforms = require("torchvision.transforms.v2", extra="train")
        typed = require("torchvision.tv_tensors", extra="train")
        self._image_type, self._map_type = typed.Image, typed.Mask
        steps: list[Any] = []
        if settings.horizontal_flip:
            steps.append(transforms.RandomHorizontalFlip())
        if settings.rotation or settings.translation or settings.scaling:
            steps.append(
                transforms.RandomAffine(
                    settings.rotation,
                    translate=(settings.translation,) * 2,
                    scale=(1 - settings.scaling, 1 + settings.scaling),
                    interpolation=transforms.InterpolationMode.BILINEAR,
                    fill={typed.Image: 0, typed.Mask: unknown},
                )
            )
        if settings.brightness:
            steps.append(transforms.ColorJitter(*[settings.brightness] * 3))
        self._vary = transforms.Compose(steps) if steps else None

    def __call__(self, image_FHW: Tensor, map_HW: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both, varied.

        Args:
            image_FHW: uint8.
            map_HW: Its map.
        """
        if self._vary is None:
            return image_FHW, map_HW
        image, of_image = self._vary(self._image_type(image_FHW), self._map_type(map_HW[None]))
        return image.as_subclass(torch.Tensor), of_image.as_subclass(torch.Tensor)[0]
