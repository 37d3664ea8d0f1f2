"""The recipe of an image classifier's training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from perceiver_io.running import TrainingRecipe
from perceiver_io.tasks.image_classification.augmentation import Augmentation, augmentation_preset
from perceiver_io.tasks.image_classification.presets import VARIANTS

__all__ = ["ImageClassificationRecipe"]

_IMAGE_FIELDS = ("features", "patch_size", "position", "num_bands")
_ENCODER_FIELDS = (
    "num_latents",
    "latent_channels",
    "num_cross_attends",
    "num_blocks",
    "num_self_attends_per_block",
    "share_blocks",
    "num_cross_attention_heads",
    "num_self_attention_heads",
    "cross_attention_qk_channels",
    "dropout",
    "cross_attention_init",
    "cross_attention_query_gain",
)
_AUGMENTATION_FIELDS = tuple(one.name for one in dataclasses.fields(Augmentation))


def _model_field(what: str) -> Any:
    return field(default=None, metadata={"help": f"{what}; by default the variant's."})


def _augmentation_field(what: str) -> Any:
    return field(default=None, metadata={"help": f"{what}; by default the preset's."})


@dataclass(kw_only=True)
class ImageClassificationRecipe(TrainingRecipe):
    """What an image classifier is trained on, and how.

    Raises:
        ValueError: A value is out of its range, or does not go with another one.
    """

    dataset: str | None = field(
        default=None,
        metadata={
            "help": "digits (in scikit-learn), a folder with a folder of images for each class, or a hub id."
        },
    )
    image_column: str = field(default="image", metadata={"help": "The dataset's column with the images."})
    label_column: str = field(default="label", metadata={"help": "The dataset's column with the classes."})
    validation_fraction: float = field(
        default=0.1,
        metadata={
            "help": "Part of the training data that the best checkpoint is chosen on; 0: keep the last one."
        },
    )
    test_fraction: float = field(
        default=0.2, metadata={"help": "Part of the data to test on, where the dataset has no test set."}
    )
    skip_bad_files: bool = field(
        default=False, metadata={"help": "Leave missing and corrupt images out instead of refusing them."}
    )
    best_metric: Literal["loss", "accuracy", "none"] = field(
        default="loss",
        metadata={"help": "Validation metric that chooses the checkpoint; none: keep the last one."},
    )
    pretrained: str | None = field(
        default=None, metadata={"help": "Folder of a trained model to start from; its classes may be others."}
    )
    variant: str | None = field(
        default=None,
        metadata={
            "help": f"Model preset, one of {', '.join(VARIANTS)}; by default tiny for digits, else small."
        },
    )
    image_size: list[int] | None = field(
        default=None,
        metadata={
            "help": "Height and width that images are brought to, or one number; by default 8 for digits, else 64."
        },
    )
    image_channels: int | None = field(
        default=None, metadata={"help": "1: greyscale, 3: colour; by default 1 for digits, else 3."}
    )
    features: str | None = _model_field("What the model sees of an image: pixels, patches, conv1x1 or conv")
    patch_size: int | None = _model_field("Side of a patch, with the features patches")
    position: str | None = _model_field("Positions of the image's elements: fourier, learned or none")
    num_bands: int | None = _model_field("Frequencies of Fourier positions")
    num_latents: int | None = _model_field("Number of latents")
    latent_channels: int | None = _model_field("Width of a latent")
    num_cross_attends: int | None = _model_field("How often the latents attend to the image")
    num_blocks: int | None = _model_field("Blocks of self-attentions")
    num_self_attends_per_block: int | None = _model_field("Self-attentions in a block")
    share_blocks: str | None = _model_field("Blocks that share weights: none, all or after_first")
    num_cross_attention_heads: int | None = _model_field("Heads of a cross-attend")
    num_self_attention_heads: int | None = _model_field("Heads of a self-attention")
    cross_attention_qk_channels: int | None = _model_field(
        "Width of a cross-attend's queries, keys and values"
    )
    dropout: float | None = _model_field("Probability that a channel is dropped")
    cross_attention_init: str | None = _model_field(
        "How cross-attends start: balanced, or fan_in as published"
    )
    cross_attention_query_gain: float | None = _model_field(
        "Gain of the initial query projection; 1 as published"
    )
    augmentation: str | None = field(
        default=None,
        metadata={
            "help": "How training images are varied: none, digits or natural; "
            "by default digits for digits, else natural."
        },
    )
    crop: Literal["none", "pad", "resized"] | None = _augmentation_field("Random crops")
    crop_padding: int | None = _augmentation_field("Largest shift of the pad crop, in pixels")
    crop_min_area: float | None = _augmentation_field("Smallest area of the resized crop")
    horizontal_flip: bool | None = _augmentation_field("Mirror every second image")
    rotation: float | None = _augmentation_field("Largest rotation, in degrees")
    translation: float | None = _augmentation_field("Largest shift, as a part of the image")
    scaling: float | None = _augmentation_field("Largest change of size; 0.1: from 0.9 to 1.1 times")
    randaugment: bool | None = _augmentation_field("Apply RandAugment")
    randaugment_num_ops: int | None = _augmentation_field("Operations of RandAugment")
    randaugment_magnitude: int | None = _augmentation_field("Strength of RandAugment, 0 to 30")
    random_erasing: float | None = _augmentation_field("Probability to erase a rectangle")
    mixup: float | None = _augmentation_field("Alpha of mixup, 0: none")
    cutmix: float | None = _augmentation_field("Alpha of CutMix, 0: none")
    label_smoothing: float | None = _augmentation_field("Probability spread over all classes")

    def __post_init__(self) -> None:
        """Fills in what follows from the dataset, and checks all values."""
        super().__post_init__()
        is_digits = self.dataset == "digits"
        self.augmentation = self.augmentation or ("digits" if is_digits else "natural")
        self.augmentation_settings()
        if self.pretrained is None:
            self.variant = self.variant or ("tiny" if is_digits else "small")
            self.image_size = self.image_size or ([8, 8] if is_digits else [64, 64])
            self.image_channels = self.image_channels or (1 if is_digits else 3)
        elif given := [
            name
            for name in ("variant", "image_channels", *_IMAGE_FIELDS, *_ENCODER_FIELDS)
            if self._has(name)
        ]:
            raise ValueError(
                f"{', '.join(given)} cannot be chosen: the model of {self.pretrained} has its own."
            )
        if self.image_size is not None:
            if len(self.image_size) not in (1, 2) or min(self.image_size) < 1:
                raise ValueError(
                    f"image_size is {self.image_size}, expected a height and a width, or one number."
                )
            self.image_size = [self.image_size[0], self.image_size[-1]]

    def augmentation_settings(self) -> Augmentation:
        """Returns the augmentation: the preset with this recipe's changes."""
        changes = {name: getattr(self, name) for name in _AUGMENTATION_FIELDS if self._has(name)}
        return dataclasses.replace(augmentation_preset(self.augmentation or "none"), **changes)

    def image_settings(self) -> dict[str, Any]:
        """Returns the fields of the image adapter's configuration that differ from the variant's."""
        return {name: getattr(self, name) for name in _IMAGE_FIELDS if self._has(name)}

    def encoder_settings(self) -> dict[str, Any]:
        """Returns the fields of the encoder's configuration that differ from the variant's."""
        return {name: getattr(self, name) for name in _ENCODER_FIELDS if self._has(name)}

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None
