"""Configurations of models that continue music."""

from __future__ import annotations

from typing import Any

from perceiver_io.adapters.music_events import VOCAB_SIZE
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.causal_language_modeling.presets import config as config_of_tokens

__all__ = ["config"]


def config(
    *,
    variant: str = "compact",
    max_length: int = 512,
    num_latents: int | None = None,
    tokens: dict[str, Any] | None = None,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a model that continues music: a language model of 389 events.

    Args:
        variant: One of `tasks.autoregressive.presets.VARIANTS`.
        max_length: The most events that the model reads.
        num_latents: Of how many of the last it says what follows; half of them if None.
        tokens: Fields of `TextAdapter.Config` that differ.
        encoder: Fields of `CausalEncoderConfig` that differ from the variant's.
        decoder: Fields of `NextTokenDecoder.Config` that differ.

    Raises:
        ValueError: The variant or a field is unknown, or the fields do not fit together.
    """
    return config_of_tokens(
        variant=variant,
        vocab_size=VOCAB_SIZE,
        max_length=max_length,
        num_latents=num_latents,
        tokens=tokens,
        encoder=encoder,
        decoder=decoder,
    )
