"""Image classification: presets, the model class, its image processor.

Importing this registers the model with the auto classes of `transformers`; data, training and pictures are
imported where they are used.
"""

from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.utils.import_utils import is_vision_available

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.image_classification.model import PerceiverIOForImageClassification
from perceiver_io.tasks.image_classification.presets import VARIANTS, config

__all__ = ["VARIANTS", "PerceiverIOForImageClassification", "PerceiverIOImageProcessor", "config"]

AutoModelForImageClassification.register(PerceiverIOConfig, PerceiverIOForImageClassification)
if is_vision_available():  # Pillow comes with an extra
    # Both keys: with one alone, loading warns that the other backend is not there.
    AutoImageProcessor.register(
        PerceiverIOConfig,
        image_processor_classes={"torchvision": PerceiverIOImageProcessor, "pil": PerceiverIOImageProcessor},
    )
