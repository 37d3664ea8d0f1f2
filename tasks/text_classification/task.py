"""The text classification task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perceiver_io.registry import register_task
from perceiver_io.tasks.classification.modal_task import ModalClassificationTask, ModalRecipe
from perceiver_io.tasks.modalities.modality import settings_section
from perceiver_io.tasks.modalities.text import TEXTS
from perceiver_io.tasks.text_classification.data import EMBEDDED
from perceiver_io.tasks.text_classification.model import PerceiverIOForSequenceClassification
from perceiver_io.tasks.text_classification.presets import INPUTS

__all__ = ["TextClassificationTask"]


@dataclass(kw_only=True)
class TextClassificationRecipe(ModalRecipe):
    """What a text classifier is trained on, and how."""

    embedded = tuple(EMBEDDED)
    inputs_of_task = INPUTS

    text: dict[str, Any] = settings_section(TEXTS, "the texts")
    num_epochs: int = 25
    batch_size: int = 32
    learning_rate: float = 2e-3


@register_task("text-classification")
class TextClassificationTask(ModalClassificationTask):
    """Trains and applies `PerceiverIOForSequenceClassification`."""

    model_class = PerceiverIOForSequenceClassification
    recipe_class = TextClassificationRecipe
    input_metavar = "TEXT_OR_FILE"
    inputs = INPUTS
    embedded = EMBEDDED
