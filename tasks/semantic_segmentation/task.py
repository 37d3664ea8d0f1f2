"""The task of semantic segmentation.

Shape legend: B batch, F image channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.extras import require
from perceiver_io.media.images import write_image
from perceiver_io.pictures.class_colours import class_colours
from perceiver_io.registry import register_task
from perceiver_io.running import Setup
from perceiver_io.running.task import Batch, Drawing
from perceiver_io.tasks.dense.classes import (
    check_class_names,
    class_measures,
    class_parts,
    found_classes,
    iou_per_class,
    parts_line,
    segmented_line,
    update_classes,
    with_classes,
)
from perceiver_io.tasks.dense.image_maps import ImageMapRecipe, ImageMapTask
from perceiver_io.tasks.dense.losses import UNKNOWN
from perceiver_io.tasks.dense.presets import IMAGE
from perceiver_io.tasks.semantic_segmentation.data import EMBEDDED, MASKS, mask_classes
from perceiver_io.tasks.semantic_segmentation.model import CLASSES, PerceiverIOForSemanticSegmentation
from perceiver_io.tasks.semantic_segmentation.picture import draw_segmentation, overlay
from perceiver_io.tasks.semantic_segmentation.presets import config

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["SemanticSegmentationTask"]


@dataclass(kw_only=True)
class SemanticSegmentationRecipe(ImageMapRecipe):
    """What a model of semantic segmentation is trained on, and how.

    Raises:
        ValueError: A value is out of its range.
    """

    embedded = tuple(EMBEDDED)

    label_column: str = field(default="mask", metadata={"help": "The dataset's column with the masks."})
    class_names: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Names of the classes, by their index in the masks; by default as many as the masks have, called "
            "by their index."
        },
    )
    unknown_classes: list[int] = field(
        default_factory=lambda: [255],
        metadata={"help": "Values in the masks that stand for no class: such pixels count for nothing."},
    )

    def __post_init__(self) -> None:
        """Checks all values."""
        super().__post_init__()
        check_class_names(self.class_names)


@register_task("semantic-segmentation")
class SemanticSegmentationTask(ImageMapTask):
    """Trains and applies `PerceiverIOForSemanticSegmentation`."""

    model_class = PerceiverIOForSemanticSegmentation
    recipe_class = SemanticSegmentationRecipe
    target = MASKS
    target_folders = ("masks", "mask", "annotations", "labels", "segmentations")
    embedded = EMBEDDED
    unknown = UNKNOWN
    endings = ("-classes.png", "-overlay.png")
    picture = "segmentation.png"

    def data(self, recipe: SemanticSegmentationRecipe) -> Splits:
        """Reads images and masks, and finds out how many classes there are."""
        data = super().data(recipe)
        names = recipe.class_names or data.class_names or found_classes(data.train, MASKS)
        return replace(data, class_names=tuple(names))

    def to_map(self, target: Any, recipe: SemanticSegmentationRecipe) -> Tensor:
        """Reads a mask."""
        return mask_classes(target, unknown=recipe.unknown_classes)

    def fresh(self, recipe: SemanticSegmentationRecipe, data: Splits) -> tuple[PerceiverIOConfig, Any]:
        """Returns the preset's configuration; images are of the processor's size."""
        processor, changes = self.processor(recipe, data), recipe.model_settings
        made = config(
            class_names=data.class_names,
            size=(processor.size["height"], processor.size["width"]),
            image_channels=recipe.image_channels,
            variant=recipe.variant,
            image=changes.input(IMAGE),
            encoder=changes.encoder,
            decoder=changes.output(CLASSES),
        )
        return made, processor

    def fine_tuned(
        self, config: PerceiverIOConfig, processor: Any, recipe: Any, data: Splits
    ) -> tuple[PerceiverIOConfig, Any]:
        """Gives the output as many classes as the data has, and the processor the recipe's size."""
        config, processor = super().fine_tuned(config, processor, recipe, data)
        return with_classes(config, data.class_names), processor

    def measures(self, setup: Setup) -> dict[str, Metric]:
        """Mean intersection over union, and that of each class; the accuracy of pixels, and the classes' mean."""
        return class_measures(len(setup.data.class_names), element="pixel")

    def update(self, measures: Mapping[str, Metric], output: Any, batch: Batch) -> None:
        """Compares the most probable classes of all pixels that have one."""
        update_classes(measures, output, batch)

    def results(self, setup: Setup, values: Mapping[str, Any]) -> dict[str, Any]:
        """The intersection over union of each class, by name."""
        return iou_per_class(setup.data.class_names, values)

    def predicted(self, values: Tensor, processor: Any) -> Tensor:
        """Returns the most probable classes."""
        return values.argmax(1)

    def described(self, predicted: Tensor, pixels_FHW: Tensor, model: Any) -> dict[str, Any]:
        """Returns `classes`: the part of the picture that each class takes, the largest first."""
        return {"classes": class_parts(predicted.numpy(), model.config.id2label)}

    def write(self, paths: Sequence[Path], predicted: Tensor, pixels_FHW: Tensor, model: Any) -> None:
        """Writes `NAME-classes.png`, which holds the class indices, and `NAME-overlay.png`, a picture."""
        classes_HW, num_classes = predicted.numpy(), len(model.config.id2label)
        kind = np.uint8 if num_classes <= 256 else np.uint16
        write_image(paths[0], require("PIL.Image", extra="image").fromarray(classes_HW.astype(kind)))
        write_image(paths[1], overlay(pixels_FHW, classes_HW, class_colours(num_classes)))

    def drawing(self, pixels: Sequence[Tensor], labels: Tensor, predicted: Tensor, setup: Setup) -> Drawing:
        """Draws images beside their true and predicted classes."""
        return partial(draw_segmentation, pixels, labels.numpy(), predicted.numpy(), setup.data.class_names)

    def describe_results(self, results: Mapping[str, Any]) -> str:
        """Returns what matters most, on one line."""
        return segmented_line(results, element="pixel", noun="images")

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns one line: the file, and its classes with the part of the picture that each takes."""
        return parts_line(prediction)
