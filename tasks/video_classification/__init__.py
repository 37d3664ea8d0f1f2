"""Video classification: presets, the model class, its video processor.

Importing this registers the model with the auto classes of `transformers`; data, training and pictures are
imported where they are used.
"""

from transformers import AutoModelForVideoClassification, AutoVideoProcessor
from transformers.utils.import_utils import is_torchvision_available, is_vision_available

from perceiver_io.adapters.video_processor import PerceiverIOVideoProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.video_classification.model import PerceiverIOForVideoClassification
from perceiver_io.tasks.video_classification.presets import config

__all__ = ["PerceiverIOForVideoClassification", "PerceiverIOVideoProcessor", "config"]

if is_vision_available() and is_torchvision_available():  # the auto class needs both
    AutoVideoProcessor.register(PerceiverIOConfig, PerceiverIOVideoProcessor)
AutoModelForVideoClassification.register(PerceiverIOConfig, PerceiverIOForVideoClassification)
