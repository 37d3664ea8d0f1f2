"""The recipe of an image classifier's training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from perceiver_io.running import section
from perceiver_io.tasks.classification.recipe import ClassificationRecipe
from perceiver_io.tasks.image_classification.augmentation import Augmentation, augmentation_preset
from perceiver_io.tasks.image_classification.presets import VARIANTS

__all__ = ["ImageClassificationRecipe"]


@dataclass(kw_only=True)
class ImageClassificationRecipe(ClassificationRecipe):
    """What an image classifier is trained on, and how.

    Raises:
        ValueError: A value is out of its range, or does not go with another one.
    """

    embedded = ("digits",)

    batch_size: int = field(default=32, metadata={"help": "Images in a batch, per process."})
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
    augmentation: dict[str, Any] = section(
        "How training images are varied: preset (none, digits, mild or natural; by default digits for digits, else "
        "mild), "
        f"and what differs from it: {', '.join(one.name for one in dataclasses.fields(Augmentation))}."
    )

    def __post_init__(self) -> None:
        """Fills in what follows from the dataset, and checks all values."""
        super().__post_init__()
        is_digits = self.dataset == "digits"
        self.augmentation = {"preset": "digits" if is_digits else "mild", **self.augmentation}
        self.augmentation_settings()
        if self.pretrained is None:
            if self.variant is None:
                self.variant = "tiny" if is_digits else "small"
            if self.image_size is None:
                self.image_size = [8, 8] if is_digits else [64, 64]
            if self.image_channels is None:
                self.image_channels = 1 if is_digits else 3
            elif self.image_channels < 1:
                raise ValueError(f"image_channels is {self.image_channels}, expected 1 or 3.")
        elif given := [name for name in ("variant", "image_channels") if getattr(self, name) is not None]:
            raise ValueError(
                f"{', '.join(given)} cannot be chosen: the model of {self.pretrained} has its own."
            )
        if self.image_size is not None:
            if len(self.image_size) not in (1, 2) or min(self.image_size) < 1:
                raise ValueError(
                    f"image_size is {self.image_size}, expected a height and a width, or one number."
                )
            self.image_size = [self.image_size[0], self.image_size[-1]]

    @property
    def shorter(self) -> list[str]:
        """Flags that shorten the training."""
        made_for_processors = self.variant in ("tiny", "small") or self.pretrained is not None
        return [*super().shorter, "--image-size", *([] if made_for_processors else ["--variant small"])]

    def augmentation_settings(self) -> Augmentation:
        """Returns the augmentation: the preset with this recipe's changes.

        Raises:
            ValueError: The preset or a setting is unknown, or a value is out of its range.
        """
        changes = {name: value for name, value in self.augmentation.items() if name != "preset"}
        return augmentation_preset(self.augmentation["preset"]).changed(changes)
