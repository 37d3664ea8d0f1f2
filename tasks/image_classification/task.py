"""The image classification task."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits, read_labelled
from perceiver_io.media.images import image_suffixes, open_image
from perceiver_io.pictures.attention_view import AttentionView
from perceiver_io.pictures.seen_image import SeenImage
from perceiver_io.registry import register_task
from perceiver_io.running import Setup
from perceiver_io.running.task import OURS, Batch, Collate, Layout
from perceiver_io.settings_files import reading_settings
from perceiver_io.tasks.classification import ClassificationTask
from perceiver_io.tasks.image_classification.augmentation import ImageCollator
from perceiver_io.tasks.image_classification.data import EMBEDDED, IMAGES
from perceiver_io.tasks.image_classification.model import IMAGE, LABEL, PerceiverIOForImageClassification
from perceiver_io.tasks.image_classification.presets import config
from perceiver_io.tasks.image_classification.published_processor import (
    from_published_settings,
    published_processor,
    to_published_settings,
)
from perceiver_io.tasks.image_classification.recipe import ImageClassificationRecipe

__all__ = ["ImageClassificationTask"]

logger = logging.getLogger(__name__)


@register_task("image-classification")
class ImageClassificationTask(ClassificationTask):
    """Trains and applies `PerceiverIOForImageClassification`."""

    model_class = PerceiverIOForImageClassification
    recipe_class = ImageClassificationRecipe

    def data(self, recipe: ImageClassificationRecipe) -> Splits:
        """Reads labelled images."""
        return read_labelled(recipe, IMAGES, embedded=EMBEDDED, seed=recipe.seed)

    def config(self, recipe: ImageClassificationRecipe, data: Splits) -> PerceiverIOConfig:
        """Returns the preset's configuration, with the recipe's settings."""
        assert (
            recipe.image_size is not None and recipe.image_channels is not None and recipe.variant is not None
        )
        settings = recipe.model_settings
        return config(
            class_names=data.class_names,
            size=(recipe.image_size[0], recipe.image_size[1]),
            image_channels=recipe.image_channels,
            variant=recipe.variant,
            image=settings.input(IMAGE),
            encoder=settings.encoder,
            decoder=settings.output(LABEL),
        )

    def processor(self, recipe: ImageClassificationRecipe, data: Splits) -> PerceiverIOImageProcessor:
        """Returns an image processor of the recipe's size and channels."""
        assert recipe.image_size is not None and recipe.image_channels is not None
        return PerceiverIOImageProcessor(size=recipe.image_size, num_channels=recipe.image_channels)

    def fine_tuned(
        self, config: PerceiverIOConfig, processor: Any, recipe: ImageClassificationRecipe, data: Splits
    ) -> tuple[PerceiverIOConfig, Any]:
        """Gives the output as many classes as the data has, and the processor the recipe's size."""
        if recipe.image_size is not None:
            processor = PerceiverIOImageProcessor.from_dict(
                {**processor.to_dict(), "size": recipe.image_size}
            )
        return super().fine_tuned(config, processor, recipe, data)

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        """Returns what makes a batch; in training it varies the images."""
        if not train:
            return super().collator(setup, train=False)
        return ImageCollator(
            setup.processor,
            setup.recipe.augmentation_settings(),
            num_classes=len(setup.data.class_names),
        )

    def collate(self, rows: Sequence[Mapping[str, Any]], processor: PerceiverIOImageProcessor) -> Batch:
        """Makes pixel values of images, as the processor says."""
        batch = {"pixel_values": processor.preprocess([row["image"] for row in rows])["pixel_values"]}
        if "label" in rows[0]:
            batch["labels"] = torch.tensor([int(row["label"]) for row in rows])
        return batch

    def read(self, file: str) -> dict[str, Any]:
        """Opens an image file."""
        return {"image": open_image(file)}

    def file_suffixes(self) -> set[str]:
        """Returns the endings of image files."""
        return image_suffixes()

    def row_view(self, model: Any, processor: Any, row: Any, title: str) -> AttentionView:
        """Returns what the latents attend to in an image, to be drawn over it."""
        view = super().row_view(model, processor, row, title)
        pixels = processor.to_uint8(row["image"])[0].permute(1, 2, 0).squeeze(-1).numpy()
        return replace(view, seen={IMAGE: SeenImage(pixels=pixels)})

    def load_processor(self, source: str | Path) -> PerceiverIOImageProcessor:
        """Loads the image processor beside a model; that of a published model becomes one of ours that does the same.

        Raises:
            ValueError: There is none, or its settings are not those of a Perceiver.
        """
        if not _has_processor(source):
            raise ValueError(f"{source} holds no trained classifier: it has no preprocessor_config.json.")
        with reading_settings(source, "preprocessor_config.json", "processor_config.json"):
            settings: Any = PerceiverIOImageProcessor.get_image_processor_dict(source)[0]
        return from_published_settings(settings)

    def save_processor(
        self, model: Any, folder: str | Path, *, source: str | Path | None = None, layout: Layout = OURS
    ) -> None:
        """Writes preprocessor_config.json: the source's, or the one that the published models were evaluated with.

        Args:
            model: The classifier.
            folder: The folder of the model.
            source: Where the model came from, if it is not new.
            layout: "perceiver-io" for our image processor, "transformers" for its own. What that cannot do is not
                written, with a warning.

        Raises:
            ValueError: The source's is damaged.
        """
        if source is None or not _has_processor(source):
            assert isinstance(model.config, PerceiverIOConfig)
            processor = published_processor(model.config)
        else:
            processor = self.load_processor(source)
        if layout == "perceiver-io":
            processor.save_pretrained(folder)
            return
        try:
            settings = to_published_settings(processor)
        except ValueError as error:
            logger.warning("No preprocessor_config.json is written. %s", error)
            return
        text = json.dumps(settings, indent=2)
        Path(folder, "preprocessor_config.json").write_text(f"{text}\n", encoding="utf-8")


def _has_processor(source: str | Path) -> bool:
    """Whether a folder has an image processor beside its model. A hub id is taken to have one."""
    return not Path(source).is_dir() or Path(source, "preprocessor_config.json").is_file()
