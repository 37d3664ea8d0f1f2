"""The image classification task: what the command line runs."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch.utils.data import DataLoader

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.extras import require
from perceiver_io.registry import register_task
from perceiver_io.tasks.image_classification.augmentation import Collator, eval_transform, train_transform
from perceiver_io.tasks.image_classification.data import ImageClassificationData, load_data
from perceiver_io.tasks.image_classification.metrics import compute_metrics, confusion, per_class_report
from perceiver_io.tasks.image_classification.model import LABEL, PerceiverIOForImageClassification
from perceiver_io.tasks.image_classification.presets import config
from perceiver_io.tasks.image_classification.processor import PerceiverIOImageProcessor
from perceiver_io.tasks.image_classification.recipe import ImageClassificationRecipe
from perceiver_io.training import RunFolder, Task, TrainingRecipe, parse_recipe
from perceiver_io.training.run_folder import no_progress_bars

if TYPE_CHECKING:
    from PIL.Image import Image

    from perceiver_io.training.trainer import Trainer

__all__ = ["ImageClassificationTask"]

logger = logging.getLogger(__name__)

_PREDICTION_BATCH = 64


@register_task("image-classification")
class ImageClassificationTask(Task):
    """Trains and applies `PerceiverIOForImageClassification`."""

    name = "image-classification"
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
        from perceiver_io.training.optimization import training_arguments
        from perceiver_io.training.trainer import Trainer

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
        model, processor = _build(recipe, data.class_names)
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
            metrics = _results(test, outcome.label_ids, outcome.predictions, data.class_names)
            metrics |= _training_results(trainer, recipe, model.num_parameters())
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
        model, processor = _load(run)
        data = _load_data(recipe)
        rows = {"train": data.train, "validation": data.validation, "test": data.test}.get(split)
        if rows is None:
            raise ValueError(
                f"The run has no images in the split {split!r}. Choose from test, validation, train."
            )
        if list(data.class_names) != _class_names(model):
            raise ValueError(
                f"The dataset {recipe.dataset} has the classes {list(data.class_names)}, the model "
                f"{_class_names(model)}: the data changed since the training."
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
        return _results(scores, all_labels.numpy(), all_logits.numpy(), data.class_names, split=split)

    def predict(self, run: RunFolder, files: Sequence[str | Path], *, top_k: int = 5) -> list[dict[str, Any]]:
        """Classifies image files.

        Args:
            run: A run folder, or any folder with a saved classifier and its processor.
            files: The image files.
            top_k: How many of the most probable classes to return.

        Returns:
            For each file its name and `labels`: class names with probabilities, the most probable first.

        Raises:
            ValueError: A file is missing or no image, or the model cannot be loaded.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected 1 or more.")
        model, processor = _load(run)
        names = _class_names(model)
        results = []
        for start in range(0, len(files), _PREDICTION_BATCH):
            part = files[start : start + _PREDICTION_BATCH]
            logits = _logits(model, processor([_open(file) for file in part])["pixel_values"])
            probabilities, classes = logits.softmax(-1).topk(min(top_k, len(names)))
            for file, row, indices in zip(part, probabilities.tolist(), classes.tolist(), strict=True):
                labels = [
                    {"label": names[index], "probability": p} for index, p in zip(indices, row, strict=True)
                ]
                results.append({"file": str(file), "labels": labels})
        return results

    def draw_attention(
        self, run: RunFolder, file: str | Path, output: str | Path, *, latents: Sequence[int] | None = None
    ) -> None:
        """Draws what the classifier attends to in an image file.

        Args:
            run: As `predict`.
            file: The image file.
            output: The picture to write; its suffix says the format.
            latents: Latents to draw; by default those that look at the least of the image.
        """
        model, processor = _load(run)
        _draw_attention(model, processor, _open(file), output, latents=latents, title=Path(file).name)

    def describe_metrics(self, metrics: dict[str, Any]) -> str:
        """Returns one line of what matters most, and one for each class."""
        split = metrics["split"]
        lines = [
            f"{split} accuracy {metrics[f'{split}_accuracy']:.2%} of {metrics[f'{split}_images']} images"
        ]
        lines[0] += f", loss {metrics[f'{split}_loss']:.4f}"
        if "train_seconds" in metrics:
            lines[0] += f"; trained in {metrics['train_seconds']:.1f} s, {metrics['parameters']:,} parameters"
        return "\n".join(lines)

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
        from perceiver_io.tasks.image_classification import pictures

        model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
        run.write_model(model, processor)
        counts = np.asarray(metrics["confusion"])
        with run.writing("confusion.png") as path:
            pictures.draw_confusion(counts, data.class_names, path)
        with run.writing("learning_curve.png") as path:
            pictures.draw_learning_curve(metrics["history"], path)
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


def _build(
    recipe: ImageClassificationRecipe, class_names: Sequence[str]
) -> tuple[PerceiverIOForImageClassification, PerceiverIOImageProcessor]:
    if recipe.pretrained is not None:
        return _fine_tuned(recipe, class_names)
    assert recipe.image_size is not None and recipe.image_channels is not None and recipe.variant is not None
    size = (recipe.image_size[0], recipe.image_size[1])
    model_config = config(
        class_names=class_names,
        size=size,
        image_channels=recipe.image_channels,
        variant=recipe.variant,
        image=recipe.image_settings(),
        encoder=recipe.encoder_settings(),
    )
    processor = PerceiverIOImageProcessor(size=size, num_channels=recipe.image_channels)
    return PerceiverIOForImageClassification(model_config), processor


def _fine_tuned(
    recipe: ImageClassificationRecipe, class_names: Sequence[str]
) -> tuple[PerceiverIOForImageClassification, PerceiverIOImageProcessor]:
    """Loads a model and gives it a new last layer if it has other classes."""
    folder = RunFolder(recipe.pretrained or "")
    processor = _load_processor(folder)
    if recipe.image_size is not None:
        settings = {**processor.to_dict(), "size": recipe.image_size}
        processor = PerceiverIOImageProcessor.from_dict(settings)
    old = PerceiverIOConfig.from_pretrained(folder)
    if LABEL not in old.outputs:
        raise ValueError(
            f"The model in {folder} is no image classifier: its outputs are {list(old.outputs)}."
        )
    label = {**old.outputs[LABEL].to_dict(), "num_classes": len(class_names)}
    new = PerceiverIOConfig(
        inputs=old.inputs,
        encoder=old.encoder,
        outputs={LABEL: type(old.outputs[LABEL]).from_dict(label)},
        id2label=dict(enumerate(class_names)),
    )
    loaded: Any
    with no_progress_bars():
        loaded = PerceiverIOForImageClassification.from_pretrained(
            folder, config=new, ignore_mismatched_sizes=True, output_loading_info=True
        )
    model, info = loaded
    names = [name for name, *_ in info["mismatched_keys"]]
    if wrong := [name for name in names if f".decoders.{LABEL}." not in name]:
        raise ValueError(f"The weights in {folder} do not fit its config.json: {wrong} have other shapes.")
    if names:
        logger.warning("The classes differ from those of %s: the last layer is trained anew.", folder)
    return model, processor


def _load(run: RunFolder) -> tuple[PerceiverIOForImageClassification, PerceiverIOImageProcessor]:
    if not run.path.is_dir():
        raise ValueError(f"There is no folder {run}.")
    if run.recipe_file.is_file() and not (run.path / "config.json").is_file():
        raise ValueError(
            f"The run {run} has no model yet: its training was interrupted. Go on with --resume."
        )
    processor = _load_processor(run)
    with no_progress_bars():
        model = PerceiverIOForImageClassification.from_pretrained(run.path).eval()
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    return model, processor


def _load_processor(run: RunFolder) -> PerceiverIOImageProcessor:
    if not (run.path / "preprocessor_config.json").is_file():
        raise ValueError(f"{run} holds no trained classifier: it has no preprocessor_config.json.")
    return PerceiverIOImageProcessor.from_pretrained(run.path)


def _class_names(model: PerceiverIOForImageClassification) -> list[str]:
    names: Any = model.config.id2label
    return [names[index] for index in range(model.num_labels)]


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
    from perceiver_io.tasks.image_classification import pictures

    pixels_1CHW = processor.to_uint8(image)
    maps = model.attention_maps(processor.normalize_pixels(pixels_1CHW).to(model.device))
    seen = pixels_1CHW[0].permute(1, 2, 0).squeeze(-1).numpy()
    pictures.draw_attention(seen, maps, output, latents=latents, title=title)


def _results(
    scores: Mapping[str, float], labels: Any, logits: Any, class_names: Sequence[str], *, split: str = "test"
) -> dict[str, Any]:
    logits = logits[0] if isinstance(logits, tuple) else logits
    predictions = logits.argmax(axis=-1)
    return {
        "split": split,
        **{f"{split}_{name}": float(value) for name, value in scores.items()},
        f"{split}_images": len(labels),
        "per_class": per_class_report(labels, predictions, class_names),
        "confusion": confusion(labels, predictions, len(class_names)).tolist(),
    }


def _training_results(
    trainer: Trainer, recipe: ImageClassificationRecipe, num_parameters: int
) -> dict[str, Any]:
    import perceiver_io

    state = trainer.state
    unwanted = ("runtime", "per_second", "flos")
    return {
        "train_seconds": trainer.train_seconds,
        "steps": state.global_step,
        "best_step": state.best_global_step,
        "best_metric": {"name": trainer.args.metric_for_best_model, "value": state.best_metric},
        "parameters": num_parameters,
        "seed": recipe.seed,
        "processes": trainer.args.world_size,
        "device": str(trainer.args.device),
        "versions": {
            "perceiver_io": perceiver_io.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "history": [
            {name: value for name, value in entry.items() if not name.endswith(unwanted)}
            for entry in state.log_history
        ],
    }
