"""The text classification task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from perceiver_io.adapters.text_processor import ByteTextProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.registry import register_task
from perceiver_io.running import LoadedModel
from perceiver_io.running.loaded_model import load_model
from perceiver_io.tasks.classification.modal_task import ModalClassificationTask, ModalRecipe
from perceiver_io.tasks.classification.presets import LABEL
from perceiver_io.tasks.masked_language_modeling.model import PerceiverIOForMaskedLM
from perceiver_io.tasks.modalities.modality import settings_section
from perceiver_io.tasks.modalities.text import TEXTS
from perceiver_io.tasks.text_classification.data import EMBEDDED
from perceiver_io.tasks.text_classification.model import TEXT, PerceiverIOForSequenceClassification
from perceiver_io.tasks.text_classification.presets import INPUTS
from perceiver_io.vector_decoders import ClassificationDecoder

__all__ = ["TextClassificationTask"]


@dataclass(kw_only=True)
class TextClassificationRecipe(ModalRecipe):
    """What a text classifier is trained on, and how."""

    embedded = tuple(EMBEDDED)
    inputs_of_task = INPUTS

    text: dict[str, Any] = settings_section(TEXTS, "the texts")
    variant: str = "nano"
    num_epochs: int = 14
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    num_threads: int | None = 1
    best_metric: str = "none"


@register_task("text-classification")
class TextClassificationTask(ModalClassificationTask):
    """Trains and applies `PerceiverIOForSequenceClassification`."""

    model_class = PerceiverIOForSequenceClassification
    recipe_class = TextClassificationRecipe
    input_metavar = "TEXT_OR_FILE"
    inputs = INPUTS
    embedded = EMBEDDED

    def trained(self, source: str | Path) -> LoadedModel[Any]:
        """Loads the model that a run is to start from: a text classifier, or a masked language model of bytes."""
        loaded = load_model(source, PerceiverIOPreTrainedModel, device="cpu", dtype=torch.float32)
        if not isinstance(loaded, PerceiverIOForMaskedLM):
            return super().trained(source)
        processor = PerceiverIOProcessor({TEXT: ByteTextProcessor(max_length=loaded.max_length)})
        return LoadedModel(model=loaded, processor=processor, source=str(source))

    def fine_tuned(
        self, config: PerceiverIOConfig, processor: Any, recipe: Any, data: Splits
    ) -> tuple[PerceiverIOConfig, Any]:
        """Gives the output as many classes as the data has; what a language model gives is left out."""
        if TEXT in config.outputs:
            config = config.replaced(outputs={LABEL: ClassificationDecoder.Config(num_classes=2)})
        return super().fine_tuned(config, processor, recipe, data)
