"""The multimodal classification task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from perceiver_io.registry import register_task
from perceiver_io.tasks.classification.modal_task import ModalClassificationTask, ModalRecipe
from perceiver_io.tasks.classification.model import PerceiverIOForClassification
from perceiver_io.tasks.modalities.audio import AUDIO
from perceiver_io.tasks.modalities.cloud import CLOUD
from perceiver_io.tasks.modalities.image import IMAGE
from perceiver_io.tasks.modalities.modality import settings_section
from perceiver_io.tasks.modalities.text import TEXTS
from perceiver_io.tasks.modalities.video import VIDEO
from perceiver_io.tasks.multimodal_classification.data import EMBEDDED
from perceiver_io.tasks.multimodal_classification.presets import INPUTS, input_dropout_of

__all__ = ["MultimodalClassificationTask"]


@dataclass(kw_only=True)
class MultimodalClassificationRecipe(ModalRecipe):
    """What a classifier of several inputs is trained on, and how.

    Raises:
        ValueError: As its base; or an input is unknown or named twice, or there is none.
    """

    embedded = tuple(EMBEDDED)
    inputs_of_task = INPUTS

    inputs: list[str] = field(
        default_factory=lambda: [IMAGE.name, AUDIO.name],
        metadata={"help": f"What a sample has, one or more of {', '.join(INPUTS.modalities)}."},
    )
    input_dropout: float = field(
        default=0.5,
        metadata={
            "help": "Probability that a training sample loses an input; one that would lose all keeps one of them."
        },
    )
    image: dict[str, Any] = settings_section(IMAGE, "the pictures")
    audio: dict[str, Any] = settings_section(AUDIO, "the recordings")
    video: dict[str, Any] = settings_section(VIDEO, "the videos")
    text: dict[str, Any] = settings_section(TEXTS, "the texts")
    cloud: dict[str, Any] = settings_section(CLOUD, "the point clouds")
    variant: str = "tiny"
    batch_size: int = 32
    learning_rate: float = 2e-3
    num_threads: int | None = 1  # as fast as two for models of this size

    def __post_init__(self) -> None:
        """Checks all values."""
        super().__post_init__()
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"inputs is {self.inputs}, expected one or more, each once.")
        INPUTS.chosen(self.inputs)
        if not 0 <= self.input_dropout < 1:
            raise ValueError(
                f"input_dropout is {self.input_dropout}, expected a fraction: at least 0, less than 1."
            )

    @property
    def input_names(self) -> list[str]:
        """The inputs that a new model has."""
        return self.inputs


@register_task("multimodal-classification")
class MultimodalClassificationTask(ModalClassificationTask):
    """Trains and applies `PerceiverIOForClassification` on any of the modalities."""

    model_class = PerceiverIOForClassification
    recipe_class = MultimodalClassificationRecipe
    input_metavar = "INPUT=FILE[,INPUT=FILE]"
    inputs = INPUTS
    embedded = EMBEDDED

    def packing(self, recipe: MultimodalClassificationRecipe) -> dict[str, Any]:
        """Returns the probability with which each input is lost in training."""
        return input_dropout_of(INPUTS.chosen(recipe.inputs), recipe.input_dropout)
