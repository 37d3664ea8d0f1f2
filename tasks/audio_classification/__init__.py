"""Audio classification: presets, the model class, its feature extractor.

Importing this registers the model with the auto classes of `transformers`; data, training and pictures are
imported where they are used.
"""

from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from perceiver_io.adapters.audio_processor import PerceiverIOFeatureExtractor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.audio_classification.model import PerceiverIOForAudioClassification
from perceiver_io.tasks.audio_classification.presets import config

__all__ = ["PerceiverIOFeatureExtractor", "PerceiverIOForAudioClassification", "config"]

AutoFeatureExtractor.register(PerceiverIOConfig, PerceiverIOFeatureExtractor)
AutoModelForAudioClassification.register(PerceiverIOConfig, PerceiverIOForAudioClassification)
