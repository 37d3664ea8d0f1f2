"""Causal Perceivers: the last elements of a sequence are the latents (Perceiver AR, Hawthorne et al., 2022)."""

from perceiver_io.causal.cache import LatentCache
from perceiver_io.causal.encoder import CausalEncoder, CausalEncoderConfig
from perceiver_io.causal.schedule import LatentSchedule
from perceiver_io.causal.sequence import SequenceAdapter

__all__ = ["CausalEncoder", "CausalEncoderConfig", "LatentCache", "LatentSchedule", "SequenceAdapter"]
