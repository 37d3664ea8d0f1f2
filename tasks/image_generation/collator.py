"""Images to batches of tokens: all that there are, or windows of them.

Shape legend: B batch, T tokens, F image channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from perceiver_io.adapters.pixel_processor import PixelSequenceProcessor
from perceiver_io.tasks.autoregressive.collator import WindowCollator
from perceiver_io.tasks.autoregressive.windows import Window
from perceiver_io.tasks.image_classification.augmentation import Augmentation, ImageVariation
from perceiver_io.tasks.image_generation.model import LABEL
from perceiver_io.tasks.image_generation.windows import random_window, whole_windows

__all__ = ["PixelCollator"]


class PixelCollator:
    """Makes a batch of images.

    In training an image is read up to a random place, if it has more values than are predicted at once; in an
    evaluation up to as many places as it takes to predict each value once. Random numbers are those of torch's global
    generator.

    Args:
        processor: Makes tokens of images.
        num_latents: N of the model.
        with_labels: Whether the model is told the class of each image.
        train: Whether batches are to be trained on.
        varied: How images are varied; not at all if None.
    """

    def __init__(
        self,
        processor: PixelSequenceProcessor,
        *,
        num_latents: int,
        with_labels: bool,
        train: bool,
        varied: Augmentation | None = None,
    ) -> None:
        self.processor, self.num_latents, self.with_labels, self.train = (
            processor,
            num_latents,
            with_labels,
            train,
        )
        self.variation = None if varied is None else ImageVariation(processor.image_processor, varied)
        self.collate = WindowCollator(pad_id=processor.tokens.start_id, num_latents=num_latents, train=False)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Makes a batch.

        Args:
            rows: Each with `image`, and `label` if the model is told.

        Returns:
            What `WindowCollator` makes, and `conditions` with the classes.
        """
        images = [row["image"] for row in rows]
        if self.variation is None:
            levels_BFHW = self.processor.to_levels(images)
        else:
            levels_BFHW = self.processor.levels_of_pixels(self.variation.pixels(images))
        windows: list[Window] = []
        owners: list[int] = []
        for index, ids_T in enumerate(self.processor.tokens.to_ids(levels_BFHW)):
            found = (
                [random_window(ids_T, self.num_latents)]
                if self.train
                else whole_windows(ids_T, self.num_latents)
            )
            windows += found
            owners += [index] * len(found)
        batch: dict[str, Any] = self.collate(windows)
        if self.with_labels:
            batch["conditions"] = {LABEL: torch.tensor([int(rows[index]["label"]) for index in owners])}
        return batch
