"""The recipe of multimodal autoencoding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from perceiver_io.media.clips import ClipFormat
from perceiver_io.running import section
from perceiver_io.running.recipe import epochs_of
from perceiver_io.tasks.dense.losses import Difference, absolute_difference, squared_difference
from perceiver_io.tasks.dense.task import DenseRecipe
from perceiver_io.tasks.multimodal_autoencoding.data import EMBEDDED
from perceiver_io.tasks.multimodal_autoencoding.model import AUDIO, IMAGE, LABEL
from perceiver_io.tasks.multimodal_autoencoding.presets import VARIANTS, clip_size
from perceiver_io.tasks.multimodal_autoencoding.variation import ClipAugmentation

__all__ = ["MultimodalAutoencodingRecipe"]


@dataclass(kw_only=True)
class MultimodalAutoencodingRecipe(DenseRecipe):
    """What an autoencoder of videos with sound is trained on, and how.

    Raises:
        ValueError: A value is out of its range.
    """

    embedded = EMBEDDED
    usual_steps = 2000
    most_epochs = 1000  # clips start at other times in each

    num_epochs: int | None = epochs_of(usual_steps, most_epochs)
    variant: str = field(default="small", metadata={"help": f"Model preset, one of {', '.join(VARIANTS)}."})
    num_frames: int | None = field(
        default=None, metadata={"help": "Frames of a clip; by default the preset's."}
    )
    image_size: list[int] | None = field(
        default=None,
        metadata={"help": "Height and width of frames, or one number; by default the preset's."},
    )
    frame_rate: float = field(default=25.0, metadata={"help": "Frames a second that a clip shows."})
    sample_rate: int | None = field(
        default=None, metadata={"help": "Samples a second of its sound; by default the preset's."}
    )
    clip_stride: int | None = field(
        default=None,
        metadata={"help": "Frames between the starts of two clips of a video; by default half a clip."},
    )
    random_starts: bool = field(
        default=True, metadata={"help": "Whether training clips start at random times between these."}
    )
    augmentation: dict[str, Any] = section(
        f"How training clips are varied: {', '.join(ClipAugmentation.__dataclass_fields__)}."
    )
    num_points: int = field(
        default=192,
        metadata={
            "help": "Queries of the frames that a training step decodes of each clip, drawn at random; all, if there "
            "are no more. A query gives a pixel, or a patch."
        },
    )
    num_sound_points: int = field(default=64, metadata={"help": "The same of the sound."})
    difference: Literal["absolute", "squared"] | None = field(
        default=None,
        metadata={"help": "What the losses of frames and sound are of; by default the preset's."},
    )
    loss_weights: dict[str, Any] = section(
        "Weights of the losses: image, audio and label, in units of the output's scale; by default the preset's."
    )
    batch_size: int = field(default=8, metadata={"help": "Clips in a batch, per process."})
    eval_batch_size: int = field(
        default=8, metadata={"help": "Clips in a batch of an evaluation, per process."}
    )
    learning_rate: float = field(
        default=3e-3, metadata={"help": "Highest learning rate, reached after the warm-up."}
    )
    num_threads: int | None = field(
        default=1, metadata={"help": "Processor threads for the training's tensor operations."}
    )

    def __post_init__(self) -> None:
        """Checks all values."""
        super().__post_init__()
        for name in ("num_frames", "sample_rate", "clip_stride", "num_sound_points"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected 1 or more.")
        if not 0 < self.frame_rate < math.inf:
            raise ValueError(f"frame_rate is {self.frame_rate}, expected a number above zero.")
        if self.image_size is not None:
            if len(self.image_size) not in (1, 2) or min(self.image_size) < 1:
                raise ValueError(
                    f"image_size is {self.image_size}, expected a height and a width, or one number."
                )
            self.image_size = [self.image_size[0], self.image_size[-1]]
        if unknown := sorted(set(self.loss_weights) - {IMAGE, AUDIO, LABEL}):
            raise ValueError(f"loss_weights has {unknown}, expected some of {IMAGE}, {AUDIO}, {LABEL}.")
        for name, weight in self.loss_weights.items():
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
                raise ValueError(f"loss_weights.{name} is {weight!r}, expected a number, 0 or more.")
        self.augmentation_settings()
        self.clip_format  # noqa: B018 - raises where the numbers do not fit

    def augmentation_settings(self) -> ClipAugmentation:
        """Returns how training clips are varied.

        Raises:
            ValueError: A setting is unknown or out of range.
        """
        try:
            return ClipAugmentation.from_dict(self.augmentation)
        except ValueError as error:
            raise ValueError(f"The section augmentation: {error}") from error

    @property
    def clip_format(self) -> ClipFormat:
        """What the clips of a new model look like."""
        size, num_samples = clip_size(self.variant)
        num_frames = self.num_frames or size[0]
        rate = self.sample_rate or round(num_samples / size[0] * 25)
        samples = num_frames * rate / self.frame_rate
        if abs(samples - round(samples)) > 1e-6:
            raise ValueError(
                f"{num_frames} frames at {self.frame_rate:g} frames a second have {samples:.3f} samples at "
                f"{rate} a second, expected a whole number. Choose another sample_rate or num_frames."
            )
        height, width = self.image_size or size[1:]
        return ClipFormat(
            num_frames=num_frames,
            size=(height, width),
            frame_rate=self.frame_rate,
            num_samples=round(samples),
        )

    def weights(self, scales: Mapping[str, float]) -> dict[str, float]:
        """Returns the weights of the losses, by output.

        Args:
            scales: The scale of each output.
        """
        chosen = {**VARIANTS[self.variant]()["loss_weights"], **self.loss_weights}
        power = 2 if self.loss_difference is squared_difference else 1
        return {name: chosen.get(name, 1.0) / scale**power for name, scale in scales.items()}

    @property
    def loss_difference(self) -> Difference:
        """What the losses of frames and sound are of."""
        chosen = self.difference or VARIANTS[self.variant]()["difference"]
        return {"absolute": absolute_difference, "squared": squared_difference}[chosen]
