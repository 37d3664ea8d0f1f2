"""The recipe of a model that draws images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from perceiver_io.running import section
from perceiver_io.tasks.autoregressive.recipe import CausalRecipe
from perceiver_io.tasks.image_classification.augmentation import Augmentation
from perceiver_io.tasks.image_generation.data import EMBEDDED, NUM_LEVELS
from perceiver_io.tasks.image_generation.presets import VARIANTS

__all__ = ["LONGEST", "ImageGenerationRecipe"]

LONGEST = 32
"""Sides that images are brought to at most, where nothing is said."""

# What mixes labels, or leaves no 8-bit values.
_NOT_FOR_LEVELS = ("random_erasing", "mixup", "cutmix", "label_smoothing")


@dataclass(kw_only=True)
class ImageGenerationRecipe(CausalRecipe):
    """What a model that draws images is trained on, and how; by default a small one, for some minutes.

    Raises:
        ValueError: A value is out of its range, or does not go with another one.
    """

    embedded = tuple(EMBEDDED)
    default_variant: ClassVar[str] = "tiny"

    variant: str | None = field(
        default=None, metadata={"help": f"Preset of a new model, one of {', '.join(VARIANTS)}."}
    )
    image_size: list[int] | None = field(
        default=None,
        metadata={
            "help": "Height and width that images are brought to, or one number; by default those of the first "
            f"training image, {LONGEST} at most."
        },
    )
    image_channels: int | None = field(
        default=None, metadata={"help": "1: greyscale, 3: colour; by default as the first training image."}
    )
    num_levels: int | None = field(
        default=None,
        metadata={
            "help": "How many levels a channel of a pixel has, 2 to 256; by default 17 for digits, which have no more, "
            "else 256."
        },
    )
    class_conditional: bool = field(
        default=True,
        metadata={"help": "Draw images of a class that is asked for, where the data has classes."},
    )
    label_dropout: float = field(
        default=0.1,
        metadata={
            "help": "Part of the training images whose class is not told, so that the model also draws without one."
        },
    )
    augmentation: dict[str, Any] = section(
        "How training images are varied, by default not at all: "
        f"{', '.join(one.name for one in dataclasses.fields(Augmentation) if one.name not in _NOT_FOR_LEVELS)}."
    )
    max_steps: int | None = 900
    batch_size: int = 32
    eval_batch_size: int = 64
    evaluate_every: int | None = 150
    num_threads: int | None = 1  # as fast as two for models of this size
    best_metric: str | None = field(
        default="bits", metadata={"help": "Validation measure that chooses the checkpoint; none: the last."}
    )

    def __post_init__(self) -> None:
        """Fills in what follows from the dataset, and checks all values."""
        super().__post_init__()
        self.augmentation_settings()
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(f"label_dropout is {self.label_dropout}, expected a part from 0 to 1.")
        of_model = ("image_size", "image_channels", "num_levels", "num_latents")
        if self.pretrained is not None:
            if given := [name for name in of_model if getattr(self, name) is not None]:
                raise ValueError(
                    f"{', '.join(given)} cannot be chosen: the model of {self.pretrained} has its own."
                )
            return
        if self.num_levels is None:
            self.num_levels = NUM_LEVELS.get(self.dataset or "", 256)
        if not 2 <= self.num_levels <= 256:
            raise ValueError(f"num_levels is {self.num_levels}, expected 2 to 256.")
        if self.image_channels not in (None, 1, 3):
            raise ValueError(f"image_channels is {self.image_channels}, expected 1 or 3.")
        if self.image_size is not None:
            if len(self.image_size) not in (1, 2) or min(self.image_size) < 1:
                raise ValueError(
                    f"image_size is {self.image_size}, expected a height and a width, or one number."
                )
            self.image_size = [self.image_size[0], self.image_size[-1]]

    def augmentation_settings(self) -> Augmentation:
        """Returns how training images are varied.

        Raises:
            ValueError: A setting is unknown, out of range, or none of images that are learned to be drawn.
        """
        if wrong := [name for name in _NOT_FOR_LEVELS if name in self.augmentation]:
            raise ValueError(
                f"The section augmentation: {', '.join(wrong)} is for classifiers, not for images that are learned to "
                "be drawn."
            )
        return Augmentation().changed(self.augmentation)
