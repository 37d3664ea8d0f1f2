"""The task of semantic segmentation.

Shape legend: K classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.extras import require
from perceiver_io.files import check_outputs, writing_into
from perceiver_io.media.images import write_image
from perceiver_io.pictures.attention_view import draw_view
from perceiver_io.pictures.class_colours import class_colours
from perceiver_io.registry import register_task
from perceiver_io.running import LoadedModel, PredictOptions, Setup
from perceiver_io.running.evaluator import to_device
from perceiver_io.running.task import Batch, Drawing
from perceiver_io.tasks.dense.classes import (
    check_class_names,
    class_measures,
    class_parts,
    found_classes,
    parts_line,
    segmented_line,
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

_NUM_DRAWN = 6
_ENDINGS = ("-classes.png", "-overlay.png")


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
    writes_files = True
    target = MASKS
    target_folders = ("masks", "mask", "annotations", "labels", "segmentations")
    embedded = EMBEDDED
    unknown = UNKNOWN

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
        classes = output.logits.argmax(1)
        for metric in measures.values():
            metric.update(classes, batch["labels"])

    def results(self, setup: Setup, values: Mapping[str, Any]) -> dict[str, Any]:
        """The intersection over union of each class, by name."""
        names = setup.data.class_names
        return {"iou_per_class": dict(zip(names, values["iou"].tolist(), strict=True))}

    def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
        """Test images with their true and their predicted classes, and what the latents attend to in the first."""
        rows = [setup.data.test[index] for index in range(min(len(setup.data.test), _NUM_DRAWN))]
        model, processor = setup.model.eval(), setup.processor
        batch = to_device(self.collate(rows, processor), model.device)
        with torch.inference_mode():
            predicted = model(pixel_values=batch["pixel_values"]).logits.argmax(1).cpu().numpy()
        pixels = [processor.to_uint8(row["image"])[0] for row in rows]
        view = self.row_view(model, processor, rows[0], "A test sample")
        drawn = partial(
            draw_segmentation, pixels, batch["labels"].cpu().numpy(), predicted, setup.data.class_names
        )
        return {"segmentation.png": drawn, "attention.png": partial(draw_view, view)}

    def predict(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], options: PredictOptions
    ) -> list[dict[str, Any]]:
        """Finds the classes of the pixels of image files, in the files' own sizes.

        Args:
            loaded: The model and its processor.
            inputs: The files.
            options: With `output_dir` each file leaves `NAME-classes.png` there, which holds the class indices, and
                `NAME-overlay.png`, a picture.

        Returns:
            For each file its name, `width`, `height`, `classes`: the part of the picture that each class takes, the
            largest first; and the `files` that were written.

        Raises:
            ValueError: A file cannot be read or would be overwritten, or the weights are damaged.
            OSError: A file cannot be written.
        """
        if options.output_dir is not None:
            names = [Path(file).stem + ending for file in inputs for ending in _ENDINGS]
            check_outputs(options.output_dir, names, inputs)
        labels = loaded.model.config.id2label
        results = []
        for file in inputs:
            image = self.read(file)["image"]
            pixels_FHW = self.as_image(image, loaded.processor.num_channels)
            batch = self._inputs(loaded.model, [{"image": image}], loaded.processor)
            with torch.inference_mode():
                logits_1KHW = loaded.model(**batch, grid=pixels_FHW.shape[1:]).logits.float()
            if not logits_1KHW.isfinite().all():
                raise ValueError("The model gives values that are not numbers: its weights are damaged.")
            classes_HW = logits_1KHW[0].argmax(0).cpu().numpy()
            result = _described(file, classes_HW, labels)
            if options.output_dir is not None:
                result["files"] = _write(options.output_dir, Path(file).stem, pixels_FHW, classes_HW, labels)
            results.append(result)
        return results

    def describe_results(self, results: Mapping[str, Any]) -> str:
        """Returns what matters most, on one line."""
        return segmented_line(results, element="pixel", noun="images")

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns one line: the file, and its classes with the part of the picture that each takes."""
        return parts_line(prediction)


def _described(file: str, classes_HW: NDArray[np.int64], labels: Mapping[int, str]) -> dict[str, Any]:
    return {
        "file": str(file),
        "width": classes_HW.shape[1],
        "height": classes_HW.shape[0],
        "classes": class_parts(classes_HW, labels),
    }


def _write(
    folder: str, stem: str, pixels_FHW: Tensor, classes_HW: NDArray[np.int64], labels: Mapping[int, str]
) -> list[str]:
    pil = require("PIL.Image", extra="image")
    kind = np.uint8 if len(labels) <= 256 else np.uint16
    pictures = [
        pil.fromarray(classes_HW.astype(kind)),
        overlay(pixels_FHW, classes_HW, class_colours(len(labels))),
    ]
    names = [stem + ending for ending in _ENDINGS]
    with writing_into(folder) as partial_folder:
        for name, picture in zip(names, pictures, strict=True):
            write_image(partial_folder / name, picture)
    return [str(Path(folder, name)) for name in names]
