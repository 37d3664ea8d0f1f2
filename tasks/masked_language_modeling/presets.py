"""Configurations of masked language models over bytes: the published one, and small ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perceiver_io.adapters.text import TextAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.encoder import EncoderConfig
from perceiver_io.presets import given, laid_over, variant_parts
from perceiver_io.tasks.masked_language_modeling.model import TEXT

__all__ = ["VARIANTS", "config"]


def config(
    *,
    variant: str = "language",
    max_length: int | None = None,
    text: dict[str, Any] | None = None,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a masked language model.

    The decoder asks for every position of the text. Its queries are learned and its logits tied to the embeddings of
    the tokens, as published; or its queries are the text's own elements. Its sizes follow from the adapter's.

    Args:
        variant: One of `VARIANTS`.
        max_length: The longest text in tokens; the variant's if None.
        text: Fields of `TextAdapter.Config` that differ from the variant's.
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of `DenseDecoder.Config` that differ from the variant's.

    Raises:
        ValueError: The variant or a field is unknown, or the fields do not fit together.
    """
    of_text, of_encoder, of_decoder = variant_parts(VARIANTS, variant, of="masked language model")
    adapter = laid_over(TextAdapter.Config, of_text, given(max_length=max_length), text)
    of_adapter: dict[str, Any] = {"output_channels": adapter.vocab_size}
    if "query_input" in of_decoder:
        of_adapter |= {"query_input_channels": adapter.element_channels}
    else:
        of_adapter |= {"grid": (adapter.max_length,), "position_channels": adapter.num_channels}
    return PerceiverIOConfig(
        inputs={TEXT: adapter},
        encoder=laid_over(EncoderConfig, of_encoder, encoder),
        outputs={TEXT: laid_over(DenseDecoder.Config, of_decoder, of_adapter, decoder)},
    )


_Fields = dict[str, Any]
_Parts = tuple[_Fields, _Fields, _Fields]

# One query for each position of the text, learned; logits from the embeddings; no queries where there is no text.
_DECODER: _Fields = {
    "grid_input": TEXT,
    "position": "learned",
    "position_resize": "truncate",
    "channel_axis": -1,
    "tied_to": TEXT,
    "query_mask_input": TEXT,
    "use_query_residual": False,
}


def _language() -> _Parts:
    """Perceiver IO on 2,048 UTF-8 bytes: 81.0 on GLUE after fine-tuning (Perceiver IO, section 4.1 and table 1)."""
    adapter = {"vocab_size": 262, "max_length": 2048, "num_channels": 768}
    encoder = {
        "num_latents": 256,
        "latent_channels": 1280,
        "num_blocks": 1,
        "num_self_attends_per_block": 26,
        "num_cross_attention_heads": 8,
        "num_self_attention_heads": 8,
        "cross_attention_qk_channels": 256,
        "cross_attention_v_channels": 1280,
        "self_attention_qk_channels": 256,
        "self_attention_v_channels": 1280,
        # As published: GELU is the approximation of the original release.
        "activation": "gelu_tanh",
        "cross_attention_init": "fan_in",
    }
    decoder = {
        **_DECODER,
        "num_heads": 8,
        "qk_channels": 256,
        "v_channels": 768,
        "activation": "gelu_tanh",
    }
    return adapter, encoder, decoder


def _tiny() -> _Parts:
    """For a few sentences of up to 128 bytes: learns them by heart in seconds."""
    adapter = {"vocab_size": 262, "max_length": 128, "num_channels": 64}
    encoder = {
        "num_latents": 32,
        "latent_channels": 64,
        "num_blocks": 1,
        "num_self_attends_per_block": 2,
        "num_cross_attention_heads": 4,
        "num_self_attention_heads": 4,
    }
    decoder = {**_DECODER, "num_heads": 4}
    return adapter, encoder, decoder


def _small() -> _Parts:
    """For windows of 256 bytes, trained from scratch in minutes on a laptop's processor.

    Convolutions tell each element its neighbours, and the queries are these elements: what is near need not go through
    the latents, which bring in what is farther away.
    """
    adapter = {
        "max_length": 256,
        "num_channels": 128,
        "features": "conv",
        "embedding_channels": 64,
        "position": "fourier",
        "num_bands": 16,
    }
    encoder = {
        "num_latents": 32,
        "latent_channels": 128,
        "num_self_attends_per_block": 2,
        "num_cross_attention_heads": 4,
        "num_self_attention_heads": 4,
        "cross_attention_qk_channels": 64,
        "cross_attention_v_channels": 128,
    }
    decoder = {
        "query_input": TEXT,
        "position": "none",
        "channel_axis": -1,
        "num_heads": 4,
        "qk_channels": 64,
        "v_channels": 128,
        "widening_factor": 4,
        "use_query_residual": True,
    }
    return adapter, encoder, decoder


VARIANTS: dict[str, Callable[[], _Parts]] = {"tiny": _tiny, "small": _small, "language": _language}
"""Presets by name."""
