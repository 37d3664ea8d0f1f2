"""What recipes of dense tasks on images have in common, single images or pairs of frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from perceiver_io.component import ComponentConfig
from perceiver_io.running import section
from perceiver_io.tasks.dense.task import DenseRecipe

__all__ = ["DenseImageRecipe"]


@dataclass(kw_only=True)
class DenseImageRecipe(DenseRecipe):
    """The recipe of a dense task on images; a subclass says how they vary, and what its size is of.

    Attributes:
        augmentation_class: The settings that the section `augmentation` holds.

    Raises:
        ValueError: A value is out of its range.
    """

    augmentation_class: ClassVar[type[ComponentConfig]]

    image_size: list[int] | None = None
    image_channels: int = field(default=3, metadata={"help": "1: greyscale, 3: colour."})
    augmentation: dict[str, Any] = section("How training images are varied.")
    learning_rate: float = field(
        default=2e-3, metadata={"help": "Highest learning rate, reached after the warm-up."}
    )

    def __post_init__(self) -> None:
        """Checks all values, those of the section too."""
        super().__post_init__()
        if self.image_channels not in (1, 3):
            raise ValueError(f"image_channels is {self.image_channels}, expected 1 or 3.")
        if self.image_size is not None:
            if len(self.image_size) not in (1, 2) or min(self.image_size) < 1:
                raise ValueError(
                    f"image_size is {self.image_size}, expected a height and a width, or one number."
                )
            self.image_size = [self.image_size[0], self.image_size[-1]]
        self.augmentation_settings()

    def augmentation_settings(self) -> Any:
        """Returns how training images are varied, an `augmentation_class`.

        Raises:
            ValueError: A setting is unknown or out of range.
        """
        try:
            return self.augmentation_class.from_dict(self.augmentation)
        except ValueError as error:
            raise ValueError(f"The section augmentation: {error}") from error
