"""What dense tasks on single images have in common: the processor, files, pictures of attention.

Shape legend: F image channels, H height, W width.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.media.images import image_suffixes, open_image
from perceiver_io.pictures.attention_view import AttentionView
from perceiver_io.pictures.seen_image import SeenImage
from perceiver_io.running.loaded_model import reading_settings
from perceiver_io.tasks.dense.presets import IMAGE
from perceiver_io.tasks.dense.task import DenseTask

__all__ = ["LONGEST", "DenseImageTask"]

LONGEST = 160
"""Sides that images are brought to at most, where nothing is said."""

_MULTIPLE = 4


class DenseImageTask(DenseTask):
    """A task whose model takes `pixel_values` and gives values for each pixel; rows have an `image`."""

    def config(self, recipe: Any, data: Splits) -> PerceiverIOConfig:
        """Returns the preset's configuration, with the recipe's settings."""
        return self.fresh(recipe, data)[0]

    @abstractmethod
    def fresh(self, recipe: Any, data: Splits) -> tuple[PerceiverIOConfig, Any]:
        """Returns the preset's configuration, for images of the processor's size, and the processor."""

    def fine_tuned(
        self, config: PerceiverIOConfig, processor: Any, recipe: Any, data: Splits
    ) -> tuple[PerceiverIOConfig, Any]:
        """Gives the processor the recipe's size."""
        if recipe.image_size is not None:
            processor = PerceiverIOImageProcessor.from_dict(
                {**processor.to_dict(), "size": recipe.image_size}
            )
        return config, processor

    def processor(self, recipe: Any, data: Splits) -> PerceiverIOImageProcessor:
        """Returns an image processor of the recipe's size, or of the first training image's."""
        size = recipe.image_size
        if size is None:
            first = self.as_image(data.train[0]["image"], recipe.image_channels)
            shrunk = min(1.0, LONGEST / max(first.shape[1:]))
            size = [max(1, round(side * shrunk / _MULTIPLE)) * _MULTIPLE for side in first.shape[1:]]
        return PerceiverIOImageProcessor(size=size, num_channels=recipe.image_channels)

    def read(self, file: str) -> dict[str, Any]:
        """Opens an image file."""
        return {"image": open_image(file)}

    def file_suffixes(self) -> set[str]:
        """Returns the endings of image files."""
        return image_suffixes()

    def load_processor(self, source: str | Path) -> PerceiverIOImageProcessor:
        """Loads the image processor beside a model.

        Raises:
            ValueError: It is damaged.
            OSError: There is none.
        """
        with reading_settings(source, "preprocessor_config.json"):
            processor: PerceiverIOImageProcessor = PerceiverIOImageProcessor.from_pretrained(source)
        return processor

    def row_view(self, model: Any, processor: Any, row: Any, title: str) -> AttentionView:
        """Returns what the latents attend to in an image, to be drawn over it."""
        view = super().row_view(model, processor, {"image": row["image"]}, title)
        pixels = processor.to_uint8(row["image"])[0].permute(1, 2, 0).squeeze(-1).numpy()
        return AttentionView(maps=view.maps, seen={IMAGE: SeenImage(pixels=pixels)}, title=title)

    def as_image(self, image: Any, num_channels: int) -> Tensor:
        """Returns an image in its own size, (F, H, W), uint8."""
        reader = PerceiverIOImageProcessor(num_channels=num_channels)
        return reader.to_tensor(reader.to_pil(image)[0])
