"""Models that continue sequences, of tokens of any kind: Perceiver AR."""

from perceiver_io.tasks.autoregressive.model import IGNORED, PerceiverARForCausalLM

__all__ = ["IGNORED", "PerceiverARForCausalLM"]
