"""The task of drawing images.

Shape legend: B batch, T tokens, F image channels, H height, W width, R rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from perceiver_io.adapters.pixel_processor import PixelSequenceProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.data.unlabelled import read_labelled_or_not
from perceiver_io.files import check_outputs, writing_into
from perceiver_io.media.images import image_suffixes, open_image, write_image
from perceiver_io.pictures.attention_view import AttentionView, draw_view
from perceiver_io.pictures.seen_pixel_sequence import SeenPixelSequence
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.registry import register_task
from perceiver_io.running import LoadedModel, Setup
from perceiver_io.running.task import OURS, Collate, Drawing, Layout, as_number
from perceiver_io.tasks.autoregressive.presets import TOKENS
from perceiver_io.tasks.autoregressive.task import AutoregressiveTask
from perceiver_io.tasks.image_classification.augmentation import Augmentation
from perceiver_io.tasks.image_classification.data import IMAGES
from perceiver_io.tasks.image_generation.collator import PixelCollator
from perceiver_io.tasks.image_generation.data import EMBEDDED
from perceiver_io.tasks.image_generation.model import LABEL, PerceiverARForImageGeneration
from perceiver_io.tasks.image_generation.presets import config
from perceiver_io.tasks.image_generation.recipe import LONGEST, ImageGenerationRecipe
from perceiver_io.tasks.image_generation.requests import (
    DrawOptions,
    draw,
    draw_requests,
    read_requests,
)
from perceiver_io.tasks.modalities.image import picture_layout
from perceiver_io.tasks.modalities.image_rows import draw_image_rows

__all__ = ["ImageGenerationTask"]

_NUM_SAMPLES, _NUM_COMPLETED, _MOST_ROWS = 10, 10, 20  # of the pictures
_MOST_TOKENS = 60_000  # that are drawn for one of them: of large images there are fewer
_UNKNOWN = 225  # grey of what a model is not shown
_SHEET = "samples.png"  # what is drawn by `predict`, all of it enlarged


@register_task("image-generation")
class ImageGenerationTask(AutoregressiveTask):
    """Trains `PerceiverARForImageGeneration`, draws images of classes, and completes image files."""

    model_class = PerceiverARForImageGeneration
    pipeline_tag = "unconditional-image-generation"
    recipe_class: ClassVar[type[Any]] = ImageGenerationRecipe
    options_class = DrawOptions
    input_metavar = "CLASS_OR_FILE"
    writes_files = True

    def data(self, recipe: ImageGenerationRecipe) -> Splits:
        """Reads images, and their classes where there are some and they are wanted."""
        data = read_labelled_or_not(recipe, IMAGES, embedded=EMBEDDED, seed=recipe.seed)
        return data if recipe.class_conditional else replace(data, class_names=())

    def config(self, recipe: ImageGenerationRecipe, data: Splits) -> PerceiverIOConfig:
        """Returns the preset's configuration, with the recipe's settings."""
        return self.fresh(recipe, data)[0]

    def fresh(
        self, recipe: ImageGenerationRecipe, data: Splits
    ) -> tuple[PerceiverIOConfig, PerceiverIOProcessor]:
        """Returns the preset's configuration, for images as the processor makes them, and the processor."""
        assert recipe.variant is not None
        processor, changes = self.processor(recipe, data), recipe.model_settings
        tokens = _pixels(processor).tokens
        made = config(
            size=tokens.size,
            image_channels=tokens.num_channels,
            num_levels=tokens.num_levels,
            num_special_tokens=tokens.num_special_tokens,
            class_names=data.class_names or None,
            variant=recipe.variant,
            num_latents=recipe.num_latents,
            tokens=changes.input(TOKENS),
            label=changes.input(LABEL),
            encoder=changes.encoder,
            decoder=changes.output(TOKENS),
            packing={**_lost_labels(recipe, data), **changes.packing},
        )
        return made, processor

    def fine_tuned(
        self, config: PerceiverIOConfig, processor: Any, recipe: ImageGenerationRecipe, data: Splits
    ) -> tuple[PerceiverIOConfig, Any]:
        """Makes sure that the data has the model's classes, if both have any.

        Raises:
            ValueError: They are others.
        """
        if LABEL not in config.inputs or not data.class_names:
            return config, processor
        names = [] if config.id2label is None else list(config.id2label.values())
        if names != list(data.class_names):
            raise ValueError(
                f"The model knows the classes {names!r:.200}, the data has {list(data.class_names)!r:.200}. Leave them "
                "out with --class-conditional false, or train a new model."
            )
        packing = replace(config.packing, input_dropout=((LABEL, recipe.label_dropout),))
        return config.replaced(packing=packing), processor

    def processor(self, recipe: ImageGenerationRecipe, data: Splits) -> PerceiverIOProcessor:
        """Returns a processor of the recipe's size and channels, or of the first training image's."""
        assert recipe.num_levels is not None
        height, width, channels = picture_layout(data.train[0]["image"])
        shrunk = min(1.0, LONGEST / max(height, width))
        size = recipe.image_size or [max(1, round(side * shrunk)) for side in (height, width)]
        pixels = PixelSequenceProcessor(
            size=(size[0], size[1]),
            num_channels=recipe.image_channels or channels,
            num_levels=recipe.num_levels,
        )
        return PerceiverIOProcessor({TOKENS: pixels})

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        """Returns what makes a batch of tokens; in training images vary, and so does what of large ones is learned."""
        recipe = setup.recipe
        settings: Augmentation = recipe.augmentation_settings()
        return PixelCollator(
            _pixels(setup.processor),
            num_latents=setup.model.num_latents,
            with_labels=bool(setup.model.num_classes and recipe.class_conditional and setup.data.class_names),
            train=train,
            varied=settings if train and settings != Augmentation() else None,
        )

    def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
        """Images of each class, test images whose upper halves the model goes on with, and what it attends to."""
        model, pixels = setup.model.eval(), _pixels(setup.processor)
        generator = torch.Generator().manual_seed(setup.recipe.seed)
        most = max(1, _MOST_TOKENS // pixels.tokens.length)
        num_rows = min(model.num_classes, _MOST_ROWS, most)
        labels = [index * model.num_classes // num_rows for index in range(num_rows)] or [-1]
        names = [model.config.id2label[label] for label in labels] if num_rows else ["images"]
        count = min(_NUM_SAMPLES, max(1, most // len(labels)))
        drawn = draw(model, [label for label in labels for _ in range(count)], generator=generator)
        parts = pixels.to_pixels(drawn).split(count)
        rows = [(name, list(images)) for name, images in zip(names, parts, strict=True)]
        drawings: dict[str, Drawing] = {"samples.png": partial(draw_image_rows, rows, tile=48)}
        if pixels.size[0] > 1:
            completions = self._completions(setup, generator, most=max(1, most // 3))
            drawings["completions.png"] = partial(draw_image_rows, completions, tile=64)
        view = _view(model, pixels, setup.data.test[0]["image"], "A test image")
        middle = [model.num_latents * part // 5 for part in range(1, 5)]  # the first see next to nothing
        drawings["attention.png"] = partial(draw_view, view, latents=middle)
        return drawings

    def attention_view(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], *, latents: Sequence[int] | None = None
    ) -> AttentionView:
        """Returns what the latents on the last values of an image file attend to."""
        if len(inputs) != 1:
            raise ValueError(f"Attention is drawn for one file at a time, got {len(inputs)}.")
        return _view(loaded.model, _pixels(loaded.processor), open_image(inputs[0]), Path(inputs[0]).name)

    def predict(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], options: DrawOptions
    ) -> list[dict[str, Any]]:
        """Draws images of classes, and judges and completes image files.

        Args:
            loaded: The model and its processor.
            inputs: Names of classes, `any` for none in particular, and image files.
            options: With `output_dir` the images are written there: `CLASS-1.png`, `FILE-completed-1.png` and so on,
                and `samples.png` with all of them enlarged. Image files are judged without one, too.

        Returns:
            For each input itself as `input`, `class`, its name or null; of an image file `bits`, how many a value of it
            takes; and the `files` that were written.

        Raises:
            ValueError: An input is neither a class nor an image file, a file cannot be read or would be overwritten, or
                there is no folder for images of classes.
            OSError: A file cannot be written.
        """
        model, pixels, folder = loaded.model, _pixels(loaded.processor), options.output_dir
        requests = read_requests(inputs, model, pixels, of_class=options.of_class)
        files = [one.text for one in requests if one.levels is not None]
        if folder is None and len(files) < len(requests):
            raise ValueError("Images of classes are written to files: choose a folder with --output-dir.")
        names = [one.file_names(options.count) for one in requests]
        if folder is not None:
            check_outputs(
                folder,
                [*(name for part in names for name in part), _SHEET],
                files,
                overwrite=options.overwrite,
            )
        results: list[dict[str, Any]] = []
        for one in requests:
            labels = None if one.label < 0 else [one.label]
            results.append({"input": one.text, "class": labels and model.config.id2label[one.label]})
            if one.levels is not None:
                bits = float(model.bits_per_value(one.levels, labels))
                if not math.isfinite(bits):
                    raise ValueError("The model gives values that are not numbers: its weights are damaged.")
                results[-1]["bits"] = bits
        if folder is None:
            return results
        drawn = draw_requests(model, requests, options)
        with writing_into(folder) as partial_folder:
            for part, levels in zip(names, drawn, strict=True):
                for name, image in zip(part, pixels.to_pil(levels), strict=True):
                    write_image(partial_folder / name, image)
            rows = [
                (one.text, list(pixels.to_pixels(levels)))
                for one, levels in zip(requests, drawn, strict=True)
            ]
            draw_image_rows(rows, partial_folder / _SHEET, tile=64)
        for result, part in zip(results, names, strict=True):
            result["files"] = [str(Path(folder, name)) for name in part]
        return results

    def describe_results(self, results: Mapping[str, Any]) -> str:
        """Returns what matters most, on one line."""
        split = results["split"]
        line = f"{split} {as_number(results[f'{split}_bits']):.3f} bits a value, accuracy "
        line += f"{as_number(results[f'{split}_accuracy']):.1%}, {results[f'{split}_samples']} images"
        if "train_seconds" in results:
            line += f"; trained in {results['train_seconds']:.1f} s, {results['parameters']:,} parameters"
        return line

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns one line: the input, how likely it is if it is a file, and what was written."""
        line = str(prediction["input"])
        if "bits" in prediction:
            line += f": {prediction['bits']:.3f} bits a value"
        if "files" in prediction:
            files = prediction["files"]
            line += f"  written: {files[0]}" + (f" to {files[-1]}" if len(files) > 1 else "")
        return line

    def file_suffixes(self) -> set[str]:
        """Returns the endings of image files."""
        return image_suffixes()

    def load_processor(self, source: str | Path) -> PerceiverIOProcessor:
        """Loads the processor beside a model.

        Raises:
            ValueError: It is damaged, or none of pixels.
            OSError: There is none.
        """
        loaded = PerceiverIOProcessor.from_pretrained(source)
        if not isinstance(loaded, PerceiverIOProcessor) or loaded.names != [TOKENS]:
            raise ValueError(f"The processor in {source} is not one of pixels ({TOKENS!r}).")
        _pixels(loaded)
        return loaded

    def save_processor(
        self, model: Any, folder: str | Path, *, source: str | Path | None = None, layout: Layout = OURS
    ) -> None:
        """Writes the processor: the source's, or one of the model's size.

        Args:
            model: The model.
            folder: The folder of the model.
            source: Where the model came from, if it is not new.
            layout: Makes no difference.
        """
        if source is not None:
            self.load_processor(source).save_pretrained(folder)
            return
        tokens = model.tokens
        pixels = PixelSequenceProcessor(
            size=tokens.size,
            num_channels=tokens.num_channels,
            num_levels=tokens.num_levels,
            num_special_tokens=tokens.num_special_tokens,
        )
        PerceiverIOProcessor({TOKENS: pixels}).save_pretrained(folder)

    def _completions(
        self, setup: Setup, generator: torch.Generator, *, most: int
    ) -> list[tuple[str, list[Tensor]]]:
        """Test images, what a model is shown of them, and how it goes on."""
        test, pixels = setup.data.test, _pixels(setup.processor)
        count = min(len(test), _NUM_COMPLETED, most)
        whole = pixels.to_levels([test[index * len(test) // count]["image"] for index in range(count)])
        upper = whole[:, :, : pixels.size[0] // 2]
        shown = torch.full_like(pixels.to_pixels(whole), _UNKNOWN)
        shown[:, :, : upper.shape[2]] = pixels.to_pixels(upper)
        rows = [("test images", list(pixels.to_pixels(whole))), ("what the model is shown", list(shown))]
        for name in ("how it goes on", "and again", "and again"):
            drawn = draw(setup.model, [-1] * count, upper, generator=generator)
            rows.append((name, list(pixels.to_pixels(drawn))))
        return rows


def _pixels(processor: PerceiverIOProcessor) -> PixelSequenceProcessor:
    pixels = processor.processors.get(TOKENS)
    if not isinstance(pixels, PixelSequenceProcessor):
        raise ValueError(
            f"The input {TOKENS!r} has the processor {type(pixels).__name__}, expected one of pixels."
        )
    return pixels


def _view(
    model: PerceiverARForImageGeneration, pixels: PixelSequenceProcessor, image: Any, title: str
) -> AttentionView:
    levels = pixels.to_levels([image])
    maps = model.perceiver.attention_maps({TOKENS: pixels.tokens.to_ids(levels).to(model.device)})
    seen = SeenPixelSequence(pixels=pixels.to_pixels(levels)[0].permute(1, 2, 0).squeeze(-1).numpy())
    return AttentionView(maps=maps, seen={TOKENS: seen}, title=title)


def _lost_labels(recipe: ImageGenerationRecipe, data: Splits) -> dict[str, Any]:
    return {"input_dropout": [[LABEL, recipe.label_dropout]]} if data.class_names else {}
