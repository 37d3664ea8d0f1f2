"""Pictures as tasks of several inputs see them: brought to one size, in pixels or patches.

Shape legend: F channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import check_positive
from perceiver_io.media.images import open_image
from perceiver_io.pictures.seen import Seen
from perceiver_io.pictures.seen_image import SeenImage
from perceiver_io.tasks.image_classification.augmentation import Augmentation, ImageVariation
from perceiver_io.tasks.image_classification.data import IMAGES
from perceiver_io.tasks.modalities.modality import Modality

__all__ = ["IMAGE", "ImageModality", "ImageSettings", "picture_layout"]

# Where the settings leave the size open, sides are no longer, and each is a multiple of a patch.
_LONGEST = 64
# Pictures whose sides are no longer are read pixel by pixel.
_PIXELS = 16
_PATCH = 4


@dataclass(frozen=True, kw_only=True)
class ImageSettings(ComponentConfig):
    """What a recipe says of pictures.

    Attributes:
        size: Height and width that pictures are brought to; the first training picture's if None, but 64 at most.
        num_channels: 1, grey, or 3, colours; as the first training picture has them if None.
        patch_size: Side of an element in pixels; 1 for sides of 16 at most, else 4, if None.
        horizontal_flip: Mirror every second picture in training; not where left and right matter.
        rotation: Largest angle in training, in degrees.
        translation: Largest shift in training, as a part of width and height.
        scaling: Largest change of size in training: 0.1 is from 0.9 to 1.1 times the size.
        randaugment: Apply RandAugment in training (Cubuk et al., 2019); for photographs.
        random_erasing: Probability to erase a rectangle in training.
    """

    size: tuple[int, int] | None = None
    num_channels: int | None = None
    patch_size: int | None = None
    horizontal_flip: bool = False
    rotation: float = 10.0
    translation: float = 0.1
    scaling: float = 0.1
    randaugment: bool = False
    random_erasing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "size", "patch_size")
        if self.num_channels not in (None, 1, 3):
            raise ValueError(f"num_channels is {self.num_channels}, expected 1 (grey) or 3 (colours).")
        if self.size is not None and any(side % self.patch(self.size) for side in self.size):
            raise ValueError(
                f"size is {list(self.size)}, expected multiples of the patch_size {self.patch(self.size)}."
            )
        self.augmentation()

    def patch(self, size: tuple[int, int]) -> int:
        """Returns the side of an element of pictures of a size."""
        if self.patch_size is not None:
            return self.patch_size
        return 1 if max(size) <= _PIXELS else _PATCH

    def augmentation(self) -> Augmentation:
        """Returns how training pictures are varied.

        Raises:
            ValueError: A value is out of range.
        """
        return Augmentation(
            horizontal_flip=self.horizontal_flip,
            rotation=self.rotation,
            translation=self.translation,
            scaling=self.scaling,
            randaugment=self.randaugment,
            random_erasing=self.random_erasing,
        )


class ImageModality(Modality):
    """Pictures."""

    name = "image"
    Settings = ImageSettings
    content = replace(IMAGES, decode=lambda value: open_image(value) if isinstance(value, Mapping) else value)

    def processor(self, settings: ImageSettings, values: Iterable[Any]) -> PerceiverIOImageProcessor:
        """Returns an image processor of the first training picture's size and channels, if these are left open."""
        size, num_channels = settings.size, settings.num_channels
        if size is None or num_channels is None:
            height, width, found = picture_layout(next(iter(values), None))
            shrunk = min(1.0, _LONGEST / max(height, width))
            patch = settings.patch((height, width))
            rows, columns = (max(1, round(side * shrunk / patch)) for side in (height, width))
            size = size or (rows * patch, columns * patch)
            num_channels = num_channels or found
        return PerceiverIOImageProcessor(size=size, num_channels=num_channels)

    def adapter(self, settings: ImageSettings, processor: PerceiverIOImageProcessor) -> ComponentConfig:
        """Returns the adapter of pixels, or of patches."""
        size = (processor.size["height"], processor.size["width"])
        patch = settings.patch(size)
        return ImageAdapter.Config(
            size=size,
            image_channels=processor.num_channels,
            features="pixels" if patch == 1 else "patches",
            patch_size=patch,
            num_bands=max(2, min(16, max(size) // patch // 2)),
            position_extent="nominal",
        )

    def varied(self, value: Any, processor: PerceiverIOImageProcessor, settings: ImageSettings) -> Tensor:
        """Turns, shifts and scales a picture, and what else the settings say."""
        return ImageVariation(processor, settings.augmentation())([value])[0]

    def seen(self, value: Any, sample: Tensor, processor: PerceiverIOImageProcessor) -> Seen:
        """Returns the picture in the size that the model saw."""
        pixels_HWF = processor.to_uint8(value)[0].permute(1, 2, 0)
        return SeenImage(pixels=pixels_HWF.squeeze(-1).numpy())


IMAGE = ImageModality()


def picture_layout(picture: Any) -> tuple[int, int, int]:
    """Height, width and channels of a picture; of colours and 64 pixels a side where there is none."""
    if picture is None:
        return _LONGEST, _LONGEST, 3
    (opened,) = PerceiverIOImageProcessor(num_channels=3).to_pil(picture)
    is_grey = picture.ndim == 2 if hasattr(picture, "ndim") else picture.mode in ("1", "L", "I", "F", "I;16")
    return opened.height, opened.width, 1 if is_grey else 3
