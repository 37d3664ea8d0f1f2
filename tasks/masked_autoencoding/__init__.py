"""Masked autoencoding: the model class and its configurations."""

from perceiver_io.tasks.masked_autoencoding.model import (
    MaskedAutoencoderOutput,
    PerceiverIOForMaskedAutoencoding,
    draw_hidden,
)
from perceiver_io.tasks.masked_autoencoding.presets import config

__all__ = ["MaskedAutoencoderOutput", "PerceiverIOForMaskedAutoencoding", "config", "draw_hidden"]
