"""Semantic segmentation: presets, the model class, its image processor.

Importing this registers the model with the auto classes of `transformers`; data, training and pictures are
imported where they are used.
"""

from transformers import AutoModelForSemanticSegmentation

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.semantic_segmentation.model import PerceiverIOForSemanticSegmentation
from perceiver_io.tasks.semantic_segmentation.presets import config

__all__ = ["PerceiverIOForSemanticSegmentation", "PerceiverIOImageProcessor", "config"]

AutoModelForSemanticSegmentation.register(PerceiverIOConfig, PerceiverIOForSemanticSegmentation)
