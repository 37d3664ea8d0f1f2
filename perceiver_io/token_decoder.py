"""Logits of the token that follows: one set for each latent.

Shape legend: B batch, N latents, D latent channels, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from perceiver_io.decoder import (
    WHOLE_OUTPUT,
    Decoder,
    DecoderConfig,
    DecoderNeeds,
    DecoderParts,
    DecoderRequest,
    Encoded,
)
from perceiver_io.input_tools import check_positive
from perceiver_io.layers import TiedOutput, linear
from perceiver_io.registry import register_decoder

__all__ = ["NextTokenDecoder"]


@register_decoder("next-token")
class NextTokenDecoder(Decoder):
    """A layer norm and a linear layer on each latent: what a causal encoder says of the token that follows it.

    Args:
        config: The settings.
        parts: D, and the embeddings that the output is tied to.

    Raises:
        ValueError: The embeddings are not V rows of D channels.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(DecoderConfig):
        """Settings of the decoder.

        Attributes:
            vocab_size: V.
            use_layer_norm: Whether the latents are layer-normed first.
            bias: Whether the logits have one.
            tied_to: Input whose embeddings the weights are; if None, the output has weights of its own.
        """

        vocab_size: int
        use_layer_norm: bool = True
        bias: bool = True
        tied_to: str | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(self, "vocab_size")

        def needs(self) -> DecoderNeeds:
            """Returns the embeddings that the output is tied to."""
            return DecoderNeeds(embedding=self.tied_to)

    def __init__(self, config: Config, parts: DecoderParts) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(parts.latent_channels) if config.use_layer_norm else nn.Identity()
        self.output: nn.Module
        if config.tied_to is None:
            self.output = linear(parts.latent_channels, config.vocab_size, bias=config.bias)
            return
        shape = None if parts.embedding is None else tuple(parts.embedding.weight.shape)
        if parts.embedding is None or shape != (config.vocab_size, parts.latent_channels):
            raise ValueError(
                f"The output is tied to {config.tied_to!r}, whose embeddings must be {config.vocab_size} (vocab_size) "
                f"of {parts.latent_channels} channels (of latents), got {shape}."
            )
        self.output = TiedOutput(parts.embedding, bias=config.bias)

    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> Tensor:
        """Returns (B, N, V) logits, of the token after each latent's.

        Args:
            encoded: The latents.
            request: The whole output; it has no points.
        """
        return self.output(self.norm(encoded.latents))
