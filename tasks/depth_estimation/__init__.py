"""Depth, or any other number for each pixel of an image: presets, the model class, its image processor.

Importing this registers the model with the auto classes of `transformers`; data, training and pictures are
imported where they are used.
"""

from transformers import AutoModelForDepthEstimation

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.depth_estimation.model import PerceiverIOForDepthEstimation
from perceiver_io.tasks.depth_estimation.presets import config

__all__ = ["PerceiverIOForDepthEstimation", "PerceiverIOImageProcessor", "config"]

AutoModelForDepthEstimation.register(PerceiverIOConfig, PerceiverIOForDepthEstimation)
