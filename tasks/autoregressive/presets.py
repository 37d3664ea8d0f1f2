"""Configurations of Perceiver ARs that are trained here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceiver_io.byte_array import PackingConfig
from perceiver_io.causal.encoder import CausalEncoderConfig
from perceiver_io.component import ComponentConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.presets import laid_over, variant_parts
from perceiver_io.token_decoder import NextTokenDecoder

__all__ = ["TOKENS", "VARIANTS", "causal_config"]

TOKENS = "tokens"
"""The input that is continued, and the output that says how."""


def causal_config(
    adapter: ComponentConfig,
    *,
    variant: str | None = None,
    max_length: int,
    num_latents: int | None = None,
    vocab_size: int,
    conditions: Mapping[str, ComponentConfig] | None = None,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
    packing: Mapping[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a Perceiver AR.

    Args:
        adapter: Of the tokens.
        variant: One of `VARIANTS`; if None, `encoder` has all that the others have.
        max_length: The most elements that the model reads.
        num_latents: The most latents; half of `max_length` if None.
        vocab_size: How many tokens there are.
        conditions: Adapters of what stands before the tokens, by name.
        encoder: Fields of `CausalEncoderConfig` that differ from the variant's.
        decoder: Fields of `NextTokenDecoder.Config` that differ.
        packing: Fields of `PackingConfig` that differ.

    Raises:
        ValueError: The variant or a field is unknown, or the fields do not fit together.
    """
    of_encoder = {} if variant is None else variant_parts(VARIANTS, variant, of="Perceiver AR")
    sizes = {
        "sequence": TOKENS,
        "max_length": max_length,
        "num_latents": max(1, max_length // 2) if num_latents is None else num_latents,
    }
    return PerceiverIOConfig(
        inputs={TOKENS: adapter, **(conditions or {})},
        encoder=laid_over(CausalEncoderConfig, of_encoder, sizes, encoder),
        outputs={TOKENS: laid_over(NextTokenDecoder.Config, {"vocab_size": vocab_size}, decoder)},
        # The tokens' own width is that of the latents: nothing is put beside them.
        packing=laid_over(PackingConfig, {"min_padding": 0}, packing),
    )


def _tiny() -> dict[str, Any]:
    """For short sequences of few tokens, trained in a minute."""
    return {"latent_channels": 64, "num_self_attends": 2, "num_heads": 4, "rotary_fraction": 0.5}


def _compact() -> dict[str, Any]:
    """A million parameters: what a processor trains on four million bytes in some minutes."""
    return {"latent_channels": 128, "num_self_attends": 4, "num_heads": 4, "rotary_fraction": 0.5}


def _small() -> dict[str, Any]:
    """Three million parameters."""
    return {"latent_channels": 192, "num_self_attends": 5, "num_heads": 6, "rotary_fraction": 0.5}


def _base() -> dict[str, Any]:
    """The size of krasserm's model of WikiText's bytes, 30 million parameters: for an accelerator."""
    return {"latent_channels": 512, "num_self_attends": 8, "num_heads": 8, "rotary_fraction": 0.5}


VARIANTS = {"tiny": _tiny, "compact": _compact, "small": _small, "base": _base}
"""Fields of `CausalEncoderConfig` by variant."""
