"""The video classification task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perceiver_io.registry import register_task
from perceiver_io.tasks.classification.modal_task import ModalClassificationTask, ModalRecipe
from perceiver_io.tasks.modalities.modality import settings_section
from perceiver_io.tasks.modalities.video import VIDEO
from perceiver_io.tasks.video_classification.data import EMBEDDED
from perceiver_io.tasks.video_classification.model import PerceiverIOForVideoClassification
from perceiver_io.tasks.video_classification.presets import INPUTS

__all__ = ["VideoClassificationTask"]


@dataclass(kw_only=True)
class VideoClassificationRecipe(ModalRecipe):
    """What a video classifier is trained on, and how."""

    embedded = tuple(EMBEDDED)
    inputs_of_task = INPUTS

    video: dict[str, Any] = settings_section(VIDEO, "the videos")
    variant: str = "tiny"
    num_epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 2e-3
    num_threads: int | None = 1  # as fast as two for models of this size


@register_task("video-classification")
class VideoClassificationTask(ModalClassificationTask):
    """Trains and applies `PerceiverIOForVideoClassification`."""

    model_class = PerceiverIOForVideoClassification
    recipe_class = VideoClassificationRecipe
    inputs = INPUTS
    embedded = EMBEDDED
