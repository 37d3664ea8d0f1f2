"""Image autoencoding: presets and the model class.

Data, training and pictures are imported where they are used.
"""

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.tasks.image_autoencoding.model import (
    ImageAutoencoderOutput,
    PerceiverIOForImageAutoencoding,
)
from perceiver_io.tasks.image_autoencoding.presets import VARIANTS, config

__all__ = [
    "VARIANTS",
    "ImageAutoencoderOutput",
    "PerceiverIOForImageAutoencoding",
    "PerceiverIOImageProcessor",
    "config",
]
