"""Symbolic music, event by event: presets, and the model class."""

from perceiver_io.tasks.autoregressive import PerceiverARForCausalLM
from perceiver_io.tasks.symbolic_music.presets import config

__all__ = ["PerceiverARForCausalLM", "config"]
