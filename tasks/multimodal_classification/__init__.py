"""Classification of samples that have several inputs: presets, the model class, its processor.

Importing this registers nothing: `PerceiverIOForClassification` belongs to `perceiver_io.tasks.classification`.
"""

from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.tasks.classification.model import PerceiverIOForClassification
from perceiver_io.tasks.multimodal_classification.presets import config

__all__ = ["PerceiverIOForClassification", "PerceiverIOProcessor", "config"]
