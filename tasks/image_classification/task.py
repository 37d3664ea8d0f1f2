"""The image classification task: what the command line runs."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch.utils.data import DataLoader

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.extras import require
from perceiver_io.model import PerceiverIOPreTrainedModel
from perceiver_io.registry import register_task
from perceiver_io.running import RunFolder, TrainableTask, TrainingRecipe, parse_recipe
from perceiver_io.running.task import Layout
from perceiver_io.tasks.image_classification.augmentation import Collator, eval_transform, train_transform
from perceiver_io.tasks.image_classification.building import (
    build_classifier,
    class_names_of,
    has_processor,
    load_classifier,
    load_processor,
)
from perceiver_io.tasks.image_classification.data import ImageClassificationData, load_data
from perceiver_io.tasks.image_classification.metrics import compute_metrics
from perceiver_io.tasks.image_classification.model import PerceiverIOForImageClassification
from perceiver_io.tasks.image_classification.published_processor import (
    published_processor,
    to_published_settings,
)
from perceiver_io.tasks.image_classification.recipe import ImageClassificationRecipe
from perceiver_io.tasks.image_classification.results import (
    describe_results,
    evaluation_results,
    training_results,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from perceiver_io.running.trainer import Trainer

__all__ = ["ImageClassificationTask"]

logger = logging.getLogger(__name__)

_PREDICTION_BATCH = 64


@register_task("image-classification")
class ImageClassificationTask(TrainableTask):
    """Trains and applies `PerceiverIOForImageClassification`."""

    name = "image-classification"
    architectures = ("PerceiverIOForImageClassification",)
    recipe_class = ImageClassificationRecipe

    def train(self, recipe: TrainingRecipe) -> dict[str, Any]:
        """Trains a classifier, evaluates it on the test images, once, and writes the run folder.

        Args:
            recipe: An `ImageClassificationRecipe`.

        Returns:
            What was written to `metrics.json`.

        Raises:
            ValueError: The recipe, the data, the output folder, or a checkpoint to resume is not usable.
            OSError: Something cannot be written.
            KeyboardInterrupt: On Ctrl-C; resuming goes on from the last checkpoint.
        """
        from perceiver_io.running.optimization import training_arguments
        from perceiver_io.running.trainer import Trainer

        assert isinstance(recipe, ImageClassificationRecipe)
        require("matplotlib", extra="train")
        if recipe.output_dir is None:
            raise ValueError("There is no output folder. Choose one with --output-dir.")
        if recipe.dataset is None:
            raise ValueError(
                "There is no dataset. Choose one with --dataset: digits, a folder of images, or a hub id."
            )
        run = RunFolder(recipe.output_dir)
        run.check(recipe)
        if recipe.resume and run.is_complete:
            logger.warning("The run %s is complete already.", run)
            return run.metrics()
        has_validation = recipe.validation_fraction > 0
        args = training_arguments(recipe, checkpoints=str(run.checkpoints), has_validation=has_validation)
        with args.main_process_first(desc="loading the data"):
            data = _load_data(recipe)
        if data.validation is None and has_validation:
            raise ValueError(
                f"The dataset {recipe.dataset} has no validation set. Pass --validation-fraction 0."
            )
        # The model's initial weights come first out of the seed.
        transformers.set_seed(recipe.seed)
        model, processor = build_classifier(recipe, data.class_names)
        augmentation = recipe.augmentation_settings()
        collate_eval = Collator(len(data.class_names), augmentation, train=False)
        with run.created(recipe, task=self.name, is_main_process=args.should_save):
            trainer = Trainer(
                model=model,
                recipe=recipe,
                args=args,
                train_data=data.train.with_transform(train_transform(processor, augmentation)),
                validation_data=data.validation and data.validation.with_transform(eval_transform(processor)),
                collate_train=_TrainCollator(len(data.class_names), augmentation),
                collate_eval=collate_eval,
                compute_metrics=compute_metrics,
                processor=processor,
            )
            trainer.fit(resume=recipe.resume)
            outcome = trainer.test(data.test.with_transform(eval_transform(processor)))
            assert outcome.metrics is not None
            test = {
                name: outcome.metrics[f"test_{name}"]
                for name in ("loss", "accuracy", "top5_accuracy")
                if f"test_{name}" in outcome.metrics
            }
            metrics = evaluation_results(test, outcome.label_ids, outcome.predictions, data.class_names)
            metrics |= training_results(trainer, recipe, model.num_parameters())
            if args.should_save:
                self._write(run, trainer, processor, data, metrics)
        return metrics

    def evaluate(self, run: RunFolder, *, split: str = "test") -> dict[str, Any]:
        """Evaluates the model of a run on its test, validation or training images, again.

        Args:
            run: The run folder.
            split: "test", "validation" or "train".

        Raises:
            ValueError: The folder is no run folder, or there is no such split.
        """
        stored = {name: value for name, value in run.recipe().items() if name != "task"}
        recipe = parse_recipe(ImageClassificationRecipe, values=stored)
        model, processor = load_classifier(run.path)
        data = _load_data(recipe)
        rows = {"train": data.train, "validation": data.validation, "test": data.test}.get(split)
        if rows is None:
            raise ValueError(
                f"The run has no images in the split {split!r}. Choose from test, validation, train."
            )
        if list(data.class_names) != class_names_of(model):
            raise ValueError(
                f"The dataset {recipe.dataset} has the classes {list(data.class_names)}, the model "
                f"{class_names_of(model)}: the data changed since the training."
            )
        rows = rows.with_transform(eval_transform(processor))
        collate = Collator(len(data.class_names), recipe.augmentation_settings(), train=False)
        batches = DataLoader(
            rows, batch_size=recipe.eval_batch_size, collate_fn=collate, num_workers=recipe.num_workers
        )
        progress = require("tqdm", extra="train").tqdm(batches, desc="evaluating", delay=1)
        logits, labels = [], []
        for batch in progress:
            logits.append(_logits(model, batch["pixel_values"]))
            labels.append(batch["labels"])
        all_logits, all_labels = torch.cat(logits), torch.cat(labels)
        prediction = transformers.EvalPrediction(all_logits.numpy(), all_labels.numpy())
        scores = {
            "loss": torch.nn.functional.cross_entropy(all_logits, all_labels).item(),
            **compute_metrics(prediction),
        }
        return evaluation_results(
            scores, all_labels.numpy(), all_logits.numpy(), data.class_names, split=split
        )

    def add_predict_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds `--top-k`."""
        parser.add_argument("--top-k", type=int, default=3, help="how many classes to print (default: 3)")

    def predict(
        self, source: str | Path, inputs: Sequence[str], options: argparse.Namespace
    ) -> list[dict[str, Any]]:
        """Classifies image files.

        Args:
            source: A run folder, any folder with a saved classifier and its processor, or a hub id.
            inputs: The image files.
            options: `top_k`: how many of the most probable classes to return. There is nothing for `output_dir`.

        Returns:
            For each file its name and `labels`: class names with probabilities, the most probable first.

        Raises:
            ValueError: A file is missing or no image, or the model cannot be loaded.
        """
        top_k = options.top_k
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected 1 or more.")
        if options.output_dir is not None:
            raise ValueError(f"The task {self.name} writes no files: leave out --output-dir.")
        model, processor = load_classifier(source)
        names = class_names_of(model)
        results = []
        for start in range(0, len(inputs), _PREDICTION_BATCH):
            part = inputs[start : start + _PREDICTION_BATCH]
            logits = _logits(model, processor([_open(file) for file in part])["pixel_values"])
            if not logits.isfinite().all():
                raise ValueError(
                    f"The model in {source} gives values that are not numbers: its weights are damaged."
                )
            probabilities, classes = logits.softmax(-1).topk(min(top_k, len(names)))
            for file, row, indices in zip(part, probabilities.tolist(), classes.tolist(), strict=True):
                labels = [
                    {"label": names[index], "probability": p} for index, p in zip(indices, row, strict=True)
                ]
                results.append({"file": str(file), "labels": labels})
        return results

    def draw_attention(
        self,
        source: str | Path,
        file: str | Path,
        output: str | Path,
        *,
        latents: Sequence[int] | None = None,
    ) -> None:
        """Draws what the classifier attends to in an image file.

        Args:
            source: As `predict`.
            file: The image file.
            output: The picture to write; its suffix says the format.
            latents: Latents to draw; by default those that look at the least of the image.
        """
        model, processor = load_classifier(source)
        _draw_attention(model, processor, _open(file), output, latents=latents, title=Path(file).name)

    def save_processor(
        self,
        model: PerceiverIOPreTrainedModel,
        folder: str | Path,
        *,
        source: str | Path | None = None,
        layout: Layout = "perceiver-io",
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
        if source is None or not has_processor(source):
            assert isinstance(model.config, PerceiverIOConfig)
            processor = published_processor(model.config)
        else:
            processor = load_processor(source)
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

    def describe_metrics(self, metrics: dict[str, Any]) -> str:
        """Returns one line: what matters most."""
        return describe_results(metrics)

    def describe_prediction(self, prediction: dict[str, Any]) -> str:
        """Returns one line: the file, and its classes with probabilities."""
        labels = "  ".join(f"{one['label']} {one['probability']:.1%}" for one in prediction["labels"])
        return f"{prediction['file']}: {labels}"

    def _write(
        self,
        run: RunFolder,
        trainer: Trainer,
        processor: PerceiverIOImageProcessor,
        data: ImageClassificationData,
        metrics: dict[str, Any],
    ) -> None:
        from perceiver_io.pictures import confusion as pictures

        model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
        run.write_model(model, processor)
        counts = np.asarray(metrics["confusion"])
        with run.writing("confusion.png") as path:
            pictures.draw_confusion(counts, data.class_names, path)
        if pictures.has_losses(metrics["history"]):
            with run.writing("learning_curve.png") as path:
                pictures.draw_learning_curve(metrics["history"], path)
        else:
            logger.warning("No loss was logged, so there is no learning curve. Lower log_every to get one.")
        first = data.test[0]
        title = f"A test image of the class {data.class_names[first['label']]}"
        with run.writing("attention.png") as path:
            _draw_attention(model, processor, first["image"], path, title=title)
        run.write_metrics(metrics)


class _TrainCollator:
    """The collator of training batches, which smooths labels too."""

    def __init__(self, num_classes: int, augmentation: Any) -> None:
        self.num_classes = num_classes
        self.smoothing = augmentation.label_smoothing
        self.collate = Collator(num_classes, augmentation, train=True)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self.collate(rows)
        if self.smoothing:
            labels = batch["labels"]
            if not labels.is_floating_point():
                labels = torch.nn.functional.one_hot(labels, self.num_classes).float()
            # The loss is linear in the labels, so this is label smoothing, and evaluation stays free of it.
            batch["labels"] = labels * (1 - self.smoothing) + self.smoothing / self.num_classes
        return batch


def _load_data(recipe: ImageClassificationRecipe) -> ImageClassificationData:
    return load_data(
        recipe.dataset or "",
        image_column=recipe.image_column,
        label_column=recipe.label_column,
        validation_fraction=recipe.validation_fraction,
        test_fraction=recipe.test_fraction,
        seed=recipe.seed,
        skip_bad_files=recipe.skip_bad_files,
    )


def _open(file: str | Path) -> Image:
    pil = require("PIL.Image", extra="image")
    try:
        with pil.open(file) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise ValueError(f"There is no file {file}.") from error
    except (OSError, ValueError, SyntaxError, pil.DecompressionBombError) as error:
        raise ValueError(f"{file} is not an image, or damaged: {error}.") from error


@torch.inference_mode()
def _logits(model: PerceiverIOForImageClassification, pixel_values: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(pixel_values=pixel_values.to(model.device)).logits.float().cpu()
    return logits


def _draw_attention(
    model: PerceiverIOForImageClassification,
    processor: PerceiverIOImageProcessor,
    image: Image,
    output: str | Path,
    *,
    latents: Sequence[int] | None = None,
    title: str | None = None,
) -> None:
    from perceiver_io.pictures import attention as attention_picture

    pixels_1CHW = processor.to_uint8(image)
    maps = model.attention_maps(processor.normalize_pixels(pixels_1CHW).to(model.device))
    seen = pixels_1CHW[0].permute(1, 2, 0).squeeze(-1).numpy()
    attention_picture.draw_attention(seen, maps, output, latents=latents, title=title)
