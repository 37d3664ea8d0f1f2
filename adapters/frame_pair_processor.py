"""Pairs of frames to what a model of their motion takes.

Shape legend: B batch, F image channels, H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.component import ComponentConfig
from perceiver_io.media.images import open_image
from perceiver_io.ragged import pad_ragged
from perceiver_io.registry import register_processor

if TYPE_CHECKING:
    from PIL.Image import Image

    Frame = str | os.PathLike[str] | Image | NDArray[np.uint8] | Tensor

__all__ = ["FramePairProcessor"]


@register_processor("frame-pair")
@dataclass(frozen=True, kw_only=True)
class FramePairProcessor(ComponentConfig):
    """Converts pairs of images to 8-bit values and scales these to [-1, 1]; nothing is cut or resized.

    Attributes:
        num_channels: F, 1 for greyscale, 3 for RGB.
    """

    num_channels: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.image_processor  # refuses another number of channels

    @cached_property
    def image_processor(self) -> PerceiverIOImageProcessor:
        """What treats each frame."""
        return PerceiverIOImageProcessor(num_channels=self.num_channels)

    def prepare(self, value: Any) -> Tensor:
        """Returns the frames of one pair.

        Args:
            value: The first and the second frame, each as `pixels` takes it.

        Returns:
            (2, F, H, W) in [-1, 1].

        Raises:
            ValueError: They are not two, one is no image, or the sizes differ.
        """
        if not isinstance(value, (Sequence, np.ndarray, Tensor)) or isinstance(value, str) or len(value) != 2:
            raise ValueError(
                f"A pair is its first and its second frame, got {type(value).__name__}. Give it as (first, second)."
            )
        return self.normalized(self.pixels(value[0]), self.pixels(value[1]))

    def pixels(self, frame: Frame) -> Tensor:
        """Returns the pixels of one frame as the model sees them, before they are scaled.

        Args:
            frame: A file's name, a PIL image of any mode, or uint8 values as a NumPy array (H, W) or (H, W, 3) or as a
                tensor (H, W) or (3, H, W).

        Returns:
            (F, H, W) uint8; grey becomes RGB, transparency is dropped, and images are turned upright (EXIF).

        Raises:
            ValueError: It is not an image, or cannot be read.
        """
        image: Any = open_image(frame) if isinstance(frame, (str, os.PathLike)) else frame
        images = self.image_processor.to_pil(image)
        if len(images) != 1:
            raise ValueError(
                f"Expected one image, got {len(images)}. Pass the two frames of a pair one by one."
            )
        return self.image_processor.to_tensor(images[0])

    def normalized(self, first: Tensor, second: Tensor) -> Tensor:
        """Returns a pair of frames, scaled.

        Args:
            first: (F, H, W) uint8, what `pixels` returned.
            second: The same of the second frame.

        Returns:
            (2, F, H, W) in [-1, 1].

        Raises:
            ValueError: The sizes differ.
        """
        sizes = [f"{frame.shape[2]}x{frame.shape[1]}" for frame in (first, second)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"The two frames must have one size, got {sizes[0]} and {sizes[1]} pixels. Crop or pad them alike."
            )
        return self.image_processor.normalize_pixels(torch.stack([first, second]))

    def collate(self, samples: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """Makes a batch of pairs, padded to the largest.

        Args:
            samples: What `prepare` returned; None where a sample lacks it.

        Returns:
            (B, 2, F, H, W), and the mask, (B, H, W); None where all is real.
        """
        return pad_ragged(samples, axes=(2, 3))
