"""The audio classification task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perceiver_io.registry import register_task
from perceiver_io.tasks.audio_classification.data import EMBEDDED
from perceiver_io.tasks.audio_classification.model import PerceiverIOForAudioClassification
from perceiver_io.tasks.audio_classification.presets import INPUTS
from perceiver_io.tasks.classification.modal_task import ModalClassificationTask, ModalRecipe
from perceiver_io.tasks.modalities.audio import AUDIO
from perceiver_io.tasks.modalities.modality import settings_section

__all__ = ["AudioClassificationTask"]


@dataclass(kw_only=True)
class AudioClassificationRecipe(ModalRecipe):
    """What an audio classifier is trained on, and how."""

    embedded = tuple(EMBEDDED)
    inputs_of_task = INPUTS

    audio: dict[str, Any] = settings_section(AUDIO, "the recordings")
    variant: str = "tiny"
    batch_size: int = 32
    learning_rate: float = 2e-3
    num_threads: int | None = 1  # as fast as two for models of this size


@register_task("audio-classification")
class AudioClassificationTask(ModalClassificationTask):
    """Trains and applies `PerceiverIOForAudioClassification`."""

    model_class = PerceiverIOForAudioClassification
    recipe_class = AudioClassificationRecipe
    inputs = INPUTS
    embedded = EMBEDDED
