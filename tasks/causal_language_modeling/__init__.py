"""Language models that continue texts: presets, the model class, its tokenizer.

Importing this registers the model with the auto classes of `transformers`; data and training are imported where they
are used.
"""

from perceiver_io.tasks.autoregressive import PerceiverARForCausalLM
from perceiver_io.tasks.causal_language_modeling.presets import config
from perceiver_io.tasks.causal_language_modeling.tokenizer import byte_tokenizer

__all__ = ["PerceiverARForCausalLM", "byte_tokenizer", "config"]
