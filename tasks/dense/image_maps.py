"""Tasks that give a map of an image: pairs of both are read, varied together, and brought to one size.

Shape legend: B batch, F image channels, H height, W width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.data import Content, LabelledRows, Splits
from perceiver_io.data.paired import read_paired
from perceiver_io.running import section
from perceiver_io.running.task import Batch
from perceiver_io.tasks.dense.image_recipe import DenseImageRecipe
from perceiver_io.tasks.dense.image_task import LONGEST, DenseImageTask
from perceiver_io.tasks.dense.map_variation import MapAugmentation, MapVariation
from perceiver_io.tasks.dense.presets import IMAGE_MAPS
from perceiver_io.tasks.image_classification.data import IMAGES

__all__ = ["ImageMapRecipe", "ImageMapTask"]

_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "rgb")


@dataclass(kw_only=True)
class ImageMapRecipe(DenseImageRecipe):
    """The recipe of a task that gives a map of an image.

    Raises:
        ValueError: A value is out of its range.
    """

    augmentation_class = MapAugmentation

    variant: str = field(default="small", metadata={"help": f"Model preset, one of {', '.join(IMAGE_MAPS)}."})
    image_size: list[int] | None = field(
        default=None,
        metadata={
            "help": "Height and width that images and maps are brought to, or one number; by default those of the "
            f"first training image, {LONGEST} at most."
        },
    )
    augmentation: dict[str, Any] = section(
        f"How training images and maps are varied: {', '.join(MapAugmentation.__dataclass_fields__)}."
    )
    batch_size: int = field(default=16, metadata={"help": "Images in a batch, per process."})
    eval_batch_size: int = field(
        default=32, metadata={"help": "Images in a batch of an evaluation, per process."}
    )


class ImageMapTask(DenseImageTask):
    """A task whose model takes `pixel_values` and gives a value for each pixel.

    Rows have an image and a map. A subclass says what a map is (`target`, `to_map`), besides what every dense task on
    images says.

    Attributes:
        target: The files or the column of maps.
        target_folders: What the folder of maps is called, beside that of images.
        embedded: Sets that need no file.
        unknown: What a map holds where nothing is known.
    """

    target: ClassVar[Content]
    target_folders: ClassVar[Sequence[str]]
    embedded: ClassVar[Mapping[str, Callable[[], LabelledRows]]]
    unknown: ClassVar[float]

    @abstractmethod
    def to_map(self, target: Any, recipe: Any) -> Tensor:
        """Reads what a row holds of a map: (H, W) integers or numbers, `unknown` where nothing is known.

        Raises:
            ValueError: It is no map.
        """

    def data(self, recipe: Any) -> Splits:
        """Reads images and their maps; rows hold both as tensors, in their own size."""
        read = read_paired(
            recipe,
            IMAGES,
            self.target,
            folders={IMAGES.column: _IMAGE_FOLDERS, self.target.column: self.target_folders},
            embedded=self.embedded,
            seed=recipe.seed,
        )
        return read.mapped(partial(self._with_map, recipe=recipe))

    def collate(self, rows: Sequence[Mapping[str, Any]], processor: PerceiverIOImageProcessor) -> Batch:
        """Makes pixel values of images, and labels of maps, both of the processor's size."""
        batch: dict[str, Any] = {
            "pixel_values": processor.preprocess([row["image"] for row in rows])["pixel_values"]
        }
        column, size = self.target.column, (processor.size["height"], processor.size["width"])
        if column in rows[0]:
            batch["labels"] = torch.stack([resized_map(row[column], size) for row in rows])
        return batch

    def variation(self, processor: PerceiverIOImageProcessor, recipe: Any) -> Callable[[Any], Any]:
        """Returns what varies an image and its map together, in the processor's size."""
        vary = MapVariation(recipe.augmentation_settings(), unknown=self.unknown)
        return partial(self._varied, processor=processor, vary=vary)

    def _with_map(self, row: Mapping[str, Any], *, recipe: Any) -> dict[str, Any]:
        column = self.target.column
        map_HW, image_FHW = (
            self.to_map(row[column], recipe),
            self.as_image(row["image"], recipe.image_channels),
        )
        height, width = image_FHW.shape[1:]
        if map_HW.shape != (height, width):
            raise ValueError(
                f"An image of {width}x{height} pixels has a {column} of {map_HW.shape[1]}x{map_HW.shape[0]}. Bring "
                "both to one size."
            )
        return {"image": image_FHW, column: map_HW}

    def _varied(
        self, row: Mapping[str, Any], *, processor: PerceiverIOImageProcessor, vary: MapVariation
    ) -> dict[str, Any]:
        size = (processor.size["height"], processor.size["width"])
        image_FHW = processor.to_uint8(row["image"])[0]
        image_FHW, map_HW = vary(image_FHW, resized_map(row[self.target.column], size))
        return {"image": image_FHW, self.target.column: map_HW}


def resized_map(map_HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Brings a map to a size: each pixel takes the value of the nearest one, nothing is mixed.

    Args:
        map_HW: The map.
        size: Height and width.
    """
    if tuple(map_HW.shape) == size:
        return map_HW
    rows, columns = (
        ((torch.arange(new) + 0.5) * (old / new)).long().clamp(max=old - 1)
        for new, old in zip(size, map_HW.shape, strict=True)
    )
    return map_HW[rows[:, None], columns]
