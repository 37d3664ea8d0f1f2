"""Text classification: presets, the model class, its processor.

Importing this registers the model with the auto classes of `transformers`; data, training and pictures are
imported where they are used.
"""

from transformers import AutoModelForSequenceClassification

from perceiver_io.adapters.text_processor import ByteTextProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.text_classification.model import PerceiverIOForSequenceClassification
from perceiver_io.tasks.text_classification.presets import config

__all__ = ["ByteTextProcessor", "PerceiverIOForSequenceClassification", "config"]

AutoModelForSequenceClassification.register(PerceiverIOConfig, PerceiverIOForSequenceClassification)
