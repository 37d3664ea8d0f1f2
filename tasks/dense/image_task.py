"""What dense tasks on single images have in common: the processor, files in and out, pictures.

Shape legend: B batch, F image channels, H height, W width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.files import check_outputs, writing_into
from perceiver_io.media.images import image_suffixes, open_image
from perceiver_io.pictures.attention_view import AttentionView, draw_view
from perceiver_io.pictures.seen_image import SeenImage
from perceiver_io.running import LoadedModel, PredictOptions, Setup
from perceiver_io.running.evaluator import to_device
from perceiver_io.running.task import Drawing
from perceiver_io.settings_files import reading_settings
from perceiver_io.tasks.dense.presets import IMAGE
from perceiver_io.tasks.dense.task import DenseTask

__all__ = ["LONGEST", "DenseImageTask"]

LONGEST = 160
"""Sides that images are brought to at most, where nothing is said."""

_MULTIPLE, _NUM_DRAWN = 4, 6


class DenseImageTask(DenseTask):
    """A task whose model takes `pixel_values` and gives values for each pixel; rows have an `image`.

    A subclass says what the model's output means (`predicted`), and how that is described, written and drawn, besides
    what every task says.

    Attributes:
        endings: What the names of the files end with that `predict` writes for an image.
        picture: Name of the picture of test images and what is predicted of them.
    """

    writes_files = True
    endings: ClassVar[Sequence[str]]
    picture: ClassVar[str]

    @abstractmethod
    def predicted(self, values: Tensor, processor: PerceiverIOImageProcessor) -> Tensor:
        """Returns what an output says of each pixel: classes, depths, colours.

        Args:
            values: The first thing that the model gives besides a loss, (B, …, H, W), in float32.
            processor: The model's.
        """

    @abstractmethod
    def described(self, predicted: Tensor, pixels_FHW: Tensor, model: Any) -> dict[str, Any]:
        """Returns what `predict` says of an image, as JSON values.

        Args:
            predicted: One of `predicted`, on the CPU.
            pixels_FHW: The image, uint8, as large.
            model: The model.
        """

    @abstractmethod
    def write(self, paths: Sequence[Path], predicted: Tensor, pixels_FHW: Tensor, model: Any) -> None:
        """Writes what was predicted of an image to paths that end with `endings`; else as `described`."""

    @abstractmethod
    def drawing(self, pixels: Sequence[Tensor], labels: Tensor, predicted: Tensor, setup: Setup) -> Drawing:
        """Returns what draws images beside what is predicted of them.

        Args:
            pixels: (F, H, W) uint8 each.
            labels: (B, …, H, W), as `collate` makes them.
            predicted: As `predicted` makes it.
            setup: The run.
        """

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

    def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
        """Test images with what is predicted of them, and what the latents attend to in the first."""
        test, model, processor = setup.data.test, setup.model.eval(), setup.processor
        count = min(len(test), _NUM_DRAWN)
        rows = [test[index * len(test) // count] for index in range(count)]  # neighbours may be alike
        batch = to_device(self.collate(rows, processor), model.device)
        with torch.inference_mode():
            predicted = self.predicted(model(pixel_values=batch["pixel_values"])[0].float(), processor).cpu()
        pixels = [processor.to_uint8(row["image"])[0] for row in rows]
        drawn = self.drawing(pixels, batch["labels"].cpu(), predicted, setup)
        view = self.row_view(model, processor, rows[0], "A test sample")
        return {self.picture: drawn, "attention.png": partial(draw_view, view)}

    def predict(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], options: PredictOptions
    ) -> list[dict[str, Any]]:
        """Says of the pixels of image files what the model does, in the files' own sizes.

        Args:
            loaded: The model and its processor.
            inputs: The files.
            options: With `output_dir` each file leaves files there whose names are its own and end with `endings`.

        Returns:
            For each file its name, `width`, `height`, what `described` says, and the `files` that were written.

        Raises:
            ValueError: A file cannot be read or would be overwritten, or the weights are damaged.
            OSError: A file cannot be written.
        """
        folder, model, processor = options.output_dir, loaded.model, loaded.processor
        named = {file: [Path(file).stem + ending for ending in self.endings] for file in inputs}
        if folder is not None:
            check_outputs(
                folder, [name for file in inputs for name in named[file]], inputs, overwrite=options.overwrite
            )
        results = []
        for file in inputs:
            image = self.read(file)["image"]
            pixels_FHW = self.as_image(image, processor.num_channels)
            height, width = pixels_FHW.shape[1:]
            batch = self._inputs(model, [{"image": image}], processor)
            with torch.inference_mode():
                values = model(**batch, grid=(height, width))[0].float()
            if not values.isfinite().all():
                raise ValueError("The model gives values that are not numbers: its weights are damaged.")
            predicted = self.predicted(values, processor)[0].cpu()
            result: dict[str, Any] = {"file": str(file), "width": width, "height": height}
            result |= self.described(predicted, pixels_FHW, model)
            if folder is not None:
                with writing_into(folder) as partial_folder:
                    paths = [partial_folder / name for name in named[file]]
                    self.write(paths, predicted, pixels_FHW, model)
                result["files"] = [str(Path(folder, name)) for name in named[file]]
            results.append(result)
        return results

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
