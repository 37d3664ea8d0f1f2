"""Making a classifier with its processor: a new one, one to fine-tune, or a trained one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.loading import from_pretrained
from perceiver_io.progress_bars import no_progress_bars
from perceiver_io.running import RunFolder
from perceiver_io.tasks.image_classification.model import LABEL, PerceiverIOForImageClassification
from perceiver_io.tasks.image_classification.presets import config
from perceiver_io.tasks.image_classification.published_processor import from_published_settings
from perceiver_io.tasks.image_classification.recipe import ImageClassificationRecipe

__all__ = ["build_classifier", "class_names_of", "has_processor", "load_classifier", "load_processor"]

logger = logging.getLogger(__name__)


def build_classifier(
    recipe: ImageClassificationRecipe, class_names: Sequence[str]
) -> tuple[PerceiverIOForImageClassification, PerceiverIOImageProcessor]:
    """Makes the classifier that a recipe says, with its processor: a new one, or one to fine-tune.

    Args:
        recipe: The recipe.
        class_names: Names of the classes, by class index.

    Raises:
        ValueError: The recipe's settings do not fit together, or the model to start from cannot be used.
    """
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
    if not folder.path.is_dir():
        raise ValueError(
            f"There is no folder {folder} to start from: pretrained must be a folder of a trained model."
        )
    processor = load_processor(folder.path)
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


def load_classifier(
    source: str | Path,
) -> tuple[PerceiverIOForImageClassification, PerceiverIOImageProcessor]:
    """Loads a trained classifier and its processor, ready to be applied on the accelerator if there is one.

    Args:
        source: A run folder, any folder with a classifier, of ours or published, and its processor, or a hub id.

    Raises:
        ValueError: The folder does not exist, or holds no trained classifier.
        OSError: It is a hub id, and nothing can be fetched.
    """
    run = RunFolder(source)
    if run.path.is_dir() and run.recipe_file.is_file() and not (run.path / "config.json").is_file():
        raise ValueError(
            f"The run {run} has no model yet: its training was interrupted. Go on with --resume."
        )
    processor = load_processor(source)
    with no_progress_bars():
        model = from_pretrained(source)
    if not isinstance(model, PerceiverIOForImageClassification):
        raise ValueError(f"The model in {source} is no image classifier: it is a {type(model).__name__}.")
    model.eval()
    if torch.accelerator.is_available():
        device: Any = torch.accelerator.current_accelerator()
        model.to(device)
    return model, processor


def load_processor(source: str | Path) -> PerceiverIOImageProcessor:
    """Loads the image processor beside a model; that of a published model becomes one of ours that does the same.

    Args:
        source: As `load_classifier`.

    Raises:
        ValueError: There is none, or its settings are not those of a Perceiver.
    """
    if not has_processor(source):
        raise ValueError(f"{source} holds no trained classifier: it has no preprocessor_config.json.")
    settings: Any = PerceiverIOImageProcessor.get_image_processor_dict(source)[0]
    return from_published_settings(settings)


def has_processor(source: str | Path) -> bool:
    """Whether a folder has an image processor beside its model. A hub id is taken to have one."""
    return not Path(source).is_dir() or Path(source, "preprocessor_config.json").is_file()


def class_names_of(model: PerceiverIOForImageClassification) -> list[str]:
    """Returns the names of a model's classes, by class index."""
    names: Any = model.config.id2label
    return [names[index] for index in range(model.num_labels)]
