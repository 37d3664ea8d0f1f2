"""The task of depth, or of any other number that the pixels of an image have.

Shape legend: B batch, F image channels, H height, W width, N known numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.extras import require
from perceiver_io.media.images import write_image
from perceiver_io.registry import register_task
from perceiver_io.running import Setup
from perceiver_io.running.task import Batch, Drawing, as_number
from perceiver_io.tasks.dense.image_maps import ImageMapRecipe, ImageMapTask
from perceiver_io.tasks.dense.presets import IMAGE
from perceiver_io.tasks.depth_estimation.data import DEPTHS, EMBEDDED, depth_values
from perceiver_io.tasks.depth_estimation.model import DEPTH, PerceiverIOForDepthEstimation
from perceiver_io.tasks.depth_estimation.picture import draw_depths, in_colours
from perceiver_io.tasks.depth_estimation.presets import config

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["DepthEstimationTask"]

_NUM_LOOKED_AT = 200  # maps that say what the numbers are like


@dataclass(kw_only=True)
class DepthEstimationRecipe(ImageMapRecipe):
    """What a model of depths is trained on, and how.

    Raises:
        ValueError: A value is out of its range.
    """

    embedded = tuple(EMBEDDED)

    label_column: str = field(default="depth", metadata={"help": "The dataset's column with the depths."})
    unit: float = field(
        default=1.0,
        metadata={"help": "What a number in the files stands for: 0.001 for millimetres in metres."},
    )
    unknown: float | None = field(
        default=0.0,
        metadata={"help": "The number in the files that stands for an unknown depth, besides NaN."},
    )

    def __post_init__(self) -> None:
        """Checks all values."""
        super().__post_init__()
        if self.unit <= 0:
            raise ValueError(f"unit is {self.unit}, expected more than 0.")


@register_task("depth-estimation")
class DepthEstimationTask(ImageMapTask):
    """Trains and applies `PerceiverIOForDepthEstimation`."""

    model_class = PerceiverIOForDepthEstimation
    recipe_class = DepthEstimationRecipe
    target = DEPTHS
    target_folders = ("depths", "depth", "disparities", "disparity", "values")
    embedded = EMBEDDED
    unknown = float("nan")
    endings = ("-depth.npy", "-depth.png")
    picture = "depths.png"

    def to_map(self, target: Any, recipe: DepthEstimationRecipe) -> Tensor:
        """Reads the depths of an image, an array or a file."""
        values = DEPTHS.decode(target) if isinstance(target, Mapping) else target
        return depth_values(values, unit=recipe.unit, unknown=recipe.unknown)

    def fresh(self, recipe: DepthEstimationRecipe, data: Splits) -> tuple[PerceiverIOConfig, Any]:
        """Returns the preset's configuration: for images of the processor's size, and the training set's numbers."""
        processor, changes = self.processor(recipe, data), recipe.model_settings
        known_N = _some_known(data.train)
        made = config(
            size=(processor.size["height"], processor.size["width"]),
            image_channels=recipe.image_channels,
            offset=float(known_N.mean()),
            scale=float(known_N.std()) or 1.0,
            variant=recipe.variant,
            image=changes.input(IMAGE),
            encoder=changes.encoder,
            decoder=changes.output(DEPTH),
        )
        return made, processor

    def measures(self, setup: Setup) -> dict[str, Metric]:
        """Mean absolute, root mean squared and mean relative error, and the share of the variance that is explained."""
        metrics = require("torchmetrics", extra="train")
        return {
            "mae": metrics.MeanAbsoluteError(),
            "rmse": metrics.MeanSquaredError(squared=False),
            "relative_error": metrics.MeanAbsolutePercentageError(),
            "r2": metrics.R2Score(),
        }

    def update(self, measures: Mapping[str, Metric], output: Any, batch: Batch) -> None:
        """Compares all pixels whose number is known."""
        is_known = ~batch["labels"].isnan()
        for metric in measures.values():
            metric.update(output.predicted_depth.float()[is_known], batch["labels"][is_known])

    def predicted(self, values: Tensor, processor: Any) -> Tensor:
        """Returns the depths as they are."""
        return values

    def described(self, predicted: Tensor, pixels_FHW: Tensor, model: Any) -> dict[str, Any]:
        """Returns how near and far an image is: `nearest`, `mean`, `farthest`."""
        ends = {"nearest": predicted.min(), "mean": predicted.mean(), "farthest": predicted.max()}
        return {name: value.item() for name, value in ends.items()}

    def write(self, paths: Sequence[Path], predicted: Tensor, pixels_FHW: Tensor, model: Any) -> None:
        """Writes `NAME-depth.npy`, float32 (H, W), and `NAME-depth.png`, a picture."""
        depth_HW = predicted.numpy()
        np.save(paths[0], depth_HW)
        write_image(paths[1], in_colours(depth_HW, depth_HW.min(), depth_HW.max()))

    def drawing(self, pixels: Sequence[Tensor], labels: Tensor, predicted: Tensor, setup: Setup) -> Drawing:
        """Draws images beside their true and predicted depths."""
        return partial(draw_depths, pixels, labels.numpy(), predicted.numpy())

    def describe_results(self, results: Mapping[str, Any]) -> str:
        """Returns what matters most, on one line."""
        split = results["split"]
        line = f"{split} mean absolute error {as_number(results[f'{split}_mae']):.4g}"
        line += f", R2 {as_number(results[f'{split}_r2']):.3f} of {results[f'{split}_samples']} images"
        if "train_seconds" in results:
            line += f"; trained in {results['train_seconds']:.1f} s, {results['parameters']:,} parameters"
        return line

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns one line: the file, and how near and far it is."""
        line = f"{prediction['file']}: {prediction['nearest']:.4g} to {prediction['farthest']:.4g}"
        written = f"  written: {'  '.join(prediction['files'])}" if "files" in prediction else ""
        return f"{line}, {prediction['mean']:.4g} in the mean{written}"


def _some_known(rows: Any) -> Tensor:
    """The known numbers of up to some hundred maps, spread over the set."""
    count = min(len(rows), _NUM_LOOKED_AT)
    maps = [rows[index * len(rows) // count]["depth"] for index in range(count)]
    known_N = torch.cat([one[~one.isnan()] for one in maps]).double()
    if not len(known_N):
        raise ValueError(
            f"None of the {count} maps looked at has a known number. Say which number stands for an unknown one."
        )
    return known_N
