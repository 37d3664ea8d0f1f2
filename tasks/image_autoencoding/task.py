"""The task of image autoencoding.

Shape legend: B batch, F image channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.data.unlabelled import read_unlabelled
from perceiver_io.extras import require
from perceiver_io.media.images import write_image
from perceiver_io.registry import register_task
from perceiver_io.running import Setup, section
from perceiver_io.running.task import Batch, Drawing, as_number
from perceiver_io.tasks.dense.image_recipe import DenseImageRecipe
from perceiver_io.tasks.dense.image_task import LONGEST, DenseImageTask
from perceiver_io.tasks.dense.map_variation import MapAugmentation, MapVariation
from perceiver_io.tasks.dense.presets import IMAGE
from perceiver_io.tasks.dense.task import at_drawn_points
from perceiver_io.tasks.image_autoencoding.data import EMBEDDED
from perceiver_io.tasks.image_autoencoding.model import PerceiverIOForImageAutoencoding
from perceiver_io.tasks.image_autoencoding.picture import as_uint8, draw_pairs
from perceiver_io.tasks.image_autoencoding.presets import VARIANTS, config
from perceiver_io.tasks.image_classification.data import IMAGES

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["ImageAutoencodingTask"]

_NUM_LOOKED_AT = 1000  # images that the mean image is of


@dataclass(kw_only=True)
class ImageAutoencodingRecipe(DenseImageRecipe):
    """What an image autoencoder is trained on, and how.

    Raises:
        ValueError: A value is out of its range.
    """

    embedded = tuple(EMBEDDED)
    augmentation_class = MapAugmentation

    variant: str = field(default="small", metadata={"help": f"Model preset, one of {', '.join(VARIANTS)}."})
    image_size: list[int] | None = field(
        default=None,
        metadata={
            "help": "Height and width that images are brought to, or one number; by default those of the first "
            f"training image, {LONGEST} at most."
        },
    )
    label_column: str = field(
        default="label",
        metadata={
            "help": "A column with labels: they are not read, but split by, as a classifier's data is."
        },
    )
    augmentation: dict[str, Any] = section(
        f"How training images are varied: {', '.join(MapAugmentation.__dataclass_fields__)}."
    )
    num_points: int = field(
        default=256, metadata={"help": "Pixels of an image that a training step decodes, drawn at random."}
    )
    batch_size: int = field(default=32, metadata={"help": "Images in a batch, per process."})
    eval_batch_size: int = field(
        default=64, metadata={"help": "Images in a batch of an evaluation, per process."}
    )
    num_threads: int | None = 1  # as fast as two for models of this size


@register_task("image-autoencoding")
class ImageAutoencodingTask(DenseImageTask):
    """Trains and applies `PerceiverIOForImageAutoencoding`."""

    model_class = PerceiverIOForImageAutoencoding
    recipe_class = ImageAutoencodingRecipe
    endings = ("-reconstructed.png",)
    picture = "reconstructions.png"

    def __init__(self) -> None:
        # Of the run that is measured: `update` is handed no more than a batch.
        self._processor: Any = None
        self._mean_image: tuple[Any, Tensor] = (None, torch.empty(0))

    def data(self, recipe: ImageAutoencodingRecipe) -> Splits:
        """Reads images; labels are passed over."""
        return read_unlabelled(recipe, IMAGES, embedded=EMBEDDED, seed=recipe.seed)

    def fresh(
        self, recipe: ImageAutoencodingRecipe, data: Splits
    ) -> tuple[PerceiverIOConfig, PerceiverIOImageProcessor]:
        """Returns the preset's configuration, for images of the processor's size, and the processor."""
        processor, changes = self.processor(recipe, data), recipe.model_settings
        made = config(
            size=(processor.size["height"], processor.size["width"]),
            image_channels=recipe.image_channels,
            variant=recipe.variant,
            image=changes.input(IMAGE),
            encoder=changes.encoder,
            decoder=changes.output(IMAGE),
        )
        return made, processor

    def collate(self, rows: Sequence[Mapping[str, Any]], processor: PerceiverIOImageProcessor) -> Batch:
        """Makes pixel values of images, which are the labels, too; what came in from outside of one is not known."""
        pixels_BFHW = processor.preprocess([row["image"] for row in rows])["pixel_values"]
        labels_BFHW = pixels_BFHW
        if "known" in rows[0]:
            known_BHW = torch.stack([row["known"] for row in rows])
            labels_BFHW = torch.where(known_BHW[:, None], pixels_BFHW, torch.nan)
        return {"pixel_values": pixels_BFHW, "labels": labels_BFHW}

    def variation(self, processor: Any, recipe: Any) -> Callable[[Any], Any]:
        """Returns what varies an image, and knows what of it came in from outside."""
        vary = MapVariation(recipe.augmentation_settings(), unknown=float("nan"))

        def varied(row: Mapping[str, Any]) -> dict[str, Tensor]:
            image_FHW = processor.to_uint8(row["image"])[0]
            image_FHW, map_HW = vary(image_FHW, torch.zeros(image_FHW.shape[1:]))
            return {"image": image_FHW, "known": ~map_HW.isnan()}

        return varied

    def drawn(self, batch: Batch, number: int) -> Batch:
        """Returns a batch with the labels of so many pixels of an image at most, drawn at random."""
        return at_drawn_points(batch, number, channels=True)

    def measures(self, setup: Setup) -> dict[str, Metric]:
        """The peak signal-to-noise ratio, in decibels, and that of the training images' mean for comparison."""
        metric = require("torchmetrics.image", extra="train").PeakSignalNoiseRatio
        self._processor = setup.processor
        if self._mean_image[0] is not setup.data:
            self._mean_image = (setup.data, _mean(setup.data.train, setup.processor))
        return {"psnr": metric(data_range=1.0), "mean_image_psnr": metric(data_range=1.0)}

    def update(self, measures: Mapping[str, Metric], output: Any, batch: Batch) -> None:
        """Compares all pixels, from 0 to 1."""
        true_BFHW = _unit(batch["labels"].float(), self._processor)
        mean_BFHW = self._mean_image[1].to(true_BFHW.device).expand_as(true_BFHW)
        measures["psnr"].update(_unit(output.reconstruction.float(), self._processor), true_BFHW)
        measures["mean_image_psnr"].update(mean_BFHW, true_BFHW)

    def predicted(self, values: Tensor, processor: PerceiverIOImageProcessor) -> Tensor:
        """Returns pixels, uint8."""
        return as_uint8(_unit(values, processor))

    def described(self, predicted: Tensor, pixels_FHW: Tensor, model: Any) -> dict[str, Any]:
        """Returns the `psnr` in decibels beside the image itself; null where both are the same."""
        error = (predicted.float() - pixels_FHW.float()).square().mean() / 255**2
        return {"psnr": float(-10 * error.log10()) if error > 0 else None}

    def write(self, paths: Sequence[Path], predicted: Tensor, pixels_FHW: Tensor, model: Any) -> None:
        """Writes `NAME-reconstructed.png`."""
        write_image(paths[0], predicted.permute(1, 2, 0).squeeze(-1).numpy())

    def drawing(self, pixels: Sequence[Tensor], labels: Tensor, predicted: Tensor, setup: Setup) -> Drawing:
        """Draws images above what the model makes of their latents."""
        return partial(draw_pairs, pixels, list(predicted))

    def describe_results(self, results: Mapping[str, Any]) -> str:
        """Returns what matters most, on one line."""
        split = results["split"]
        line = f"{split} PSNR {as_number(results[f'{split}_psnr']):.2f} dB, of the mean image "
        line += (
            f"{as_number(results[f'{split}_mean_image_psnr']):.2f} dB, {results[f'{split}_samples']} images"
        )
        if "train_seconds" in results:
            line += f"; trained in {results['train_seconds']:.1f} s, {results['parameters']:,} parameters"
        return line

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns one line: the file, and how much of it was lost."""
        psnr = "the same" if prediction["psnr"] is None else f"PSNR {prediction['psnr']:.2f} dB"
        written = f"  written: {'  '.join(prediction['files'])}" if "files" in prediction else ""
        return f"{prediction['file']}: {psnr}{written}"


def _unit(values_BFHW: Tensor, processor: PerceiverIOImageProcessor) -> Tensor:
    """Pixels from 0 to 1 of what the processor has normalised."""
    mean, std = (
        values_BFHW.new_tensor(one).view(-1, 1, 1) for one in (processor.image_mean, processor.image_std)
    )
    return (values_BFHW * std + mean).clamp(0, 1)


def _mean(rows: Any, processor: PerceiverIOImageProcessor) -> Tensor:
    """(F, H, W) mean of the images, from 0 to 1; of some hundred spread over the set, where there are more."""
    count = min(len(rows), _NUM_LOOKED_AT)
    total_FHW = torch.zeros(())
    for index in range(count):
        pixels_FHW = processor.to_uint8(rows[index * len(rows) // count]["image"])[0]
        total_FHW = total_FHW + _unit(processor.normalize_pixels(pixels_FHW[None]), processor)[0].double()
    return (total_FHW / count).float()
