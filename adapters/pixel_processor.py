"""Images to the ids of their grey levels and back: the processor of models that read and write pixels one by one.

Shape legend: B batch, T tokens, F image channels, H height, W width, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.adapters.pixel_tokens import PixelTokens
from perceiver_io.component import ComponentConfig
from perceiver_io.extras import require
from perceiver_io.input_tools import check_positive
from perceiver_io.media.images import open_image
from perceiver_io.media.source import is_source
from perceiver_io.ragged import pad_ragged
from perceiver_io.registry import register_processor

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PixelSequenceProcessor"]


@register_processor("pixel-sequence")
@dataclass(frozen=True, kw_only=True)
class PixelSequenceProcessor(ComponentConfig):
    """Turns images of any size into tokens, one for each channel of each pixel, and tokens into images.

    An image is turned upright, converted and brought to the size as by `PerceiverIOImageProcessor`: cut to a centred
    box of the target's aspect ratio and resized, if it is not of this size already. Its 8-bit values become the nearest
    of the levels, which lie evenly between black and white. `PixelTokens` says how levels become ids.

    Attributes:
        size: Height and width.
        num_channels: F: 1 for greyscale, 3 for RGB.
        num_levels: How many levels a channel of a pixel has; with 256 nothing of an image of the same size is lost.
        num_special_tokens: How many of the first ids are no levels; the last of them is the start token.
        resample: Interpolation, a `PIL.Image.Resampling` number (3 is bicubic).
        do_center_crop: Whether to keep the aspect ratio by cutting off what sticks out.
    """

    size: tuple[int, int]
    num_channels: int = 3
    num_levels: int = 256
    num_special_tokens: int = 1
    resample: int = 3
    do_center_crop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "size", "num_special_tokens")
        if not 2 <= self.num_levels <= 256:
            raise ValueError(f"PixelSequenceProcessor.num_levels is {self.num_levels}, expected 2 to 256.")
        if self.num_channels not in (1, 3):
            raise ValueError(
                f"PixelSequenceProcessor.num_channels is {self.num_channels}, expected 1 (greyscale) or 3 (RGB)."
            )
        if self.resample not in range(6):
            raise ValueError(
                f"PixelSequenceProcessor.resample is {self.resample}, expected 0 to 5, as Pillow counts."
            )

    @cached_property
    def image_processor(self) -> PerceiverIOImageProcessor:
        """What reads images and brings them to the size."""
        return PerceiverIOImageProcessor(
            size=self.size,
            num_channels=self.num_channels,
            resample=self.resample,
            do_center_crop=self.do_center_crop,
        )

    @property
    def tokens(self) -> PixelTokens:
        """The vocabulary."""
        return PixelTokens(
            size=self.size,
            num_channels=self.num_channels,
            num_levels=self.num_levels,
            num_special_tokens=self.num_special_tokens,
        )

    def prepare(self, value: Any) -> Tensor:
        """Returns the tokens of one image.

        Args:
            value: A PIL image of any mode, or uint8 values as a NumPy array (H, W) or (H, W, C) or a tensor (H, W) or
                (C, H, W); or the file of an image: a path, bytes, or a mapping of `path` and `bytes`.

        Returns:
            (T,) int64, the start token first.

        Raises:
            ValueError: It is not an image, empty, or damaged.
        """
        return self.tokens.to_ids(self.to_levels([value]))[0]

    def collate(self, samples: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """Makes a batch (B, T) of samples, and its mask (B, T) where one lacks an image."""
        return pad_ragged(samples)

    def to_levels(self, images: Sequence[Any]) -> Tensor:
        """Returns the levels of images, brought to the size.

        Args:
            images: Each as `prepare` takes it.

        Returns:
            (B, F, H, W) int64, from 0 to `num_levels` - 1.

        Raises:
            ValueError: There are none, or one is not an image, empty, or damaged.
        """
        opened = [open_image(one) if is_source(one) else one for one in images]
        return self.levels_of_pixels(self.image_processor.to_uint8(opened))

    def levels_of_pixels(self, pixels: Tensor) -> Tensor:
        """Returns the level nearest to each 8-bit value, int64."""
        return (pixels.to(torch.float64) * ((self.num_levels - 1) / 255)).round().to(torch.int64)

    def to_pixels(self, levels: Tensor) -> Tensor:
        """Returns the 8-bit value of each level, uint8."""
        return (levels.to(torch.float64) * (255 / (self.num_levels - 1))).round().to(torch.uint8)

    def to_pil(self, levels_BFRW: Tensor) -> list[Image]:
        """Returns images of levels, as a model generates them.

        Args:
            levels_BFRW: From 0 to `num_levels` - 1, of images or of their first rows.
        """
        pil = require("PIL.Image", extra="image")
        pixels_BRWF = self.to_pixels(levels_BFRW).cpu().permute(0, 2, 3, 1).contiguous()
        return [pil.fromarray(one.squeeze(-1).numpy()) for one in pixels_BRWF]
