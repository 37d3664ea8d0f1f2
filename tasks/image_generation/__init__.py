"""Image generation, value by value: presets, the model class, the processor of its pixels.

Data, training and pictures are imported where they are used.
"""

from perceiver_io.adapters.pixel_processor import PixelSequenceProcessor
from perceiver_io.tasks.image_generation.model import PerceiverARForImageGeneration
from perceiver_io.tasks.image_generation.presets import VARIANTS, config

__all__ = ["VARIANTS", "PerceiverARForImageGeneration", "PixelSequenceProcessor", "config"]
