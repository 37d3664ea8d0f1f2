"""The recipe of optical flow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from perceiver_io.running import section
from perceiver_io.tasks.dense.image_recipe import DenseImageRecipe
from perceiver_io.tasks.optical_flow.data import EMBEDDED
from perceiver_io.tasks.optical_flow.flow_folders import Rendering
from perceiver_io.tasks.optical_flow.flow_variation import FlowAugmentation
from perceiver_io.tasks.optical_flow.presets import VARIANTS, config

__all__ = ["OpticalFlowRecipe"]


@dataclass(kw_only=True)
class OpticalFlowRecipe(DenseImageRecipe):
    """What a model of optical flow is trained on, and how.

    Raises:
        ValueError: A value is out of its range.
    """

    embedded = EMBEDDED
    augmentation_class = FlowAugmentation

    variant: str = field(default="small", metadata={"help": f"Model preset, one of {', '.join(VARIANTS)}."})
    image_size: list[int] | None = field(
        default=None,
        metadata={
            "help": "Height and width that the model sees, or one number; training pairs are cut to it at random "
            "places, others from their middle. By default the preset's."
        },
    )
    num_pairs: int = field(default=2000, metadata={"help": "Pairs of an embedded set to train on."})
    rendering: Rendering = field(
        default="both", metadata={"help": "Which renderings of a folder in Sintel's layout."}
    )
    occluded: bool = field(
        default=True,
        metadata={
            "help": "Whether pixels count that are hidden in the second frame, where a folder says which these are."
        },
    )
    augmentation: dict[str, Any] = section(
        f"How training pairs are varied: {', '.join(FlowAugmentation.__dataclass_fields__)}."
    )
    batch_size: int = field(default=16, metadata={"help": "Pairs in a batch, per process."})
    eval_batch_size: int = field(
        default=16, metadata={"help": "Pairs in a batch of an evaluation, per process."}
    )

    def __post_init__(self) -> None:
        """Checks all values."""
        super().__post_init__()
        if self.num_pairs < 1:
            raise ValueError(f"num_pairs is {self.num_pairs}, expected 1 or more.")

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width that a new model sees."""
        if self.image_size is not None:
            return self.image_size[0], self.image_size[1]
        frames: Any = config(variant=self.variant).inputs["frames"]
        height, width = frames.size
        return height, width
