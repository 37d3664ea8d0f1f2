"""Multimodal autoencoding: presets and the model class for videos with sound and labels.

The pipeline, the readers and writers of files, and the command line's task are imported where they are used.
"""

from perceiver_io.tasks.multimodal_autoencoding.model import (
    LOSS_WEIGHTS,
    MultimodalAutoencodingOutput,
    PerceiverIOForMultimodalAutoencoding,
)
from perceiver_io.tasks.multimodal_autoencoding.presets import VARIANTS, config

__all__ = [
    "LOSS_WEIGHTS",
    "VARIANTS",
    "MultimodalAutoencodingOutput",
    "PerceiverIOForMultimodalAutoencoding",
    "config",
]
