"""Masked language modeling over bytes: presets, the model class, a pipeline that fills masked bytes in.

Importing this registers the model with the auto classes of `transformers`.
"""

from transformers import AutoModelForMaskedLM

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.masked_language_modeling.model import PerceiverIOForMaskedLM
from perceiver_io.tasks.masked_language_modeling.pipeline import FilledText, FillMaskPipeline
from perceiver_io.tasks.masked_language_modeling.presets import VARIANTS, config

__all__ = ["VARIANTS", "FillMaskPipeline", "FilledText", "PerceiverIOForMaskedLM", "config"]

AutoModelForMaskedLM.register(PerceiverIOConfig, PerceiverIOForMaskedLM)
