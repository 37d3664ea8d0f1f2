"""Configurations of language models that continue texts."""

from __future__ import annotations

from typing import Any

from perceiver_io.adapters.text import TextAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.presets import laid_over, variant_parts
from perceiver_io.tasks.autoregressive.presets import VARIANTS, causal_config

__all__ = ["config"]


def config(
    *,
    variant: str = "small",
    vocab_size: int = 262,
    max_length: int = 512,
    num_latents: int | None = None,
    tokens: dict[str, Any] | None = None,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a language model.

    Args:
        variant: One of `tasks.autoregressive.presets.VARIANTS`.
        vocab_size: Tokens of its tokenizer; 262 are bytes and their special tokens.
        max_length: The most tokens that the model reads.
        num_latents: Of how many of the last it says what follows; half of them if None.
        tokens: Fields of `TextAdapter.Config` that differ.
        encoder: Fields of `CausalEncoderConfig` that differ from the variant's.
        decoder: Fields of `NextTokenDecoder.Config` that differ.

    Raises:
        ValueError: The variant or a field is unknown, or the fields do not fit together.
    """
    width = {**variant_parts(VARIANTS, variant, of="Perceiver AR"), **(encoder or {})}["latent_channels"]
    of_tokens = {
        "vocab_size": vocab_size,
        "max_length": max_length,
        "num_channels": width,
        "position": "none",
        "counts_real": True,
    }
    return causal_config(
        laid_over(TextAdapter.Config, of_tokens, tokens),
        variant=variant,
        max_length=max_length,
        num_latents=num_latents,
        vocab_size=vocab_size,
        encoder=encoder,
        decoder=decoder,
    )
