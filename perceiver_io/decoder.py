"""Decoders: from latents to outputs, by output queries or by pooling.

Shape legend: B batch, N latents, D latent channels, O output queries, Q query channels, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from perceiver_io.adapter import check_finite
from perceiver_io.attention import Activation, CrossAttention
from perceiver_io.byte_array import ByteArray
from perceiver_io.component import ComponentConfig
from perceiver_io.layers import LearnedArray, Linear
from perceiver_io.registry import register_decoder

__all__ = ["ClassificationDecoder", "Decoder", "Encoded", "PooledClassificationDecoder"]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What the encoder made of a batch: all that a decoder needs, and as often as needed.

    Attributes:
        latents: (B, N, D).
        byte_arrays: The byte array of each input that was there, for decoders whose queries are made of inputs.

    Raises:
        ValueError: The latents are not floating-point (B, N, D) with at least one sample, or hold NaN or infinities.
    """

    latents: Tensor
    byte_arrays: Mapping[str, ByteArray]

    def __post_init__(self) -> None:
        if self.latents.ndim != 3 or 0 in self.latents.shape or not self.latents.is_floating_point():
            raise ValueError(
                f"Latents must be floating point (B, N, D) with at least one sample, got {self.latents.dtype} "
                f"{tuple(self.latents.shape)}."
            )
        # Inputs are checked before: if the latents are not finite, the weights are to blame.
        check_finite(
            self.latents,
            name="The latent array",
            advice="The weights are damaged, or training has diverged: lower the learning rate, or warm up longer.",
        )


class Decoder(nn.Module, ABC):
    """Turns an encoded batch into one output.

    A subclass has a `Config` dataclass beside it, is built as ``Decoder(config, latent_channels=D)``, and is made
    known with `perceiver_io.register_decoder`.
    """

    Config: ClassVar[type[ComponentConfig]]

    @abstractmethod
    def forward(self, encoded: Encoded) -> Tensor:
        """Decodes (B, …), as the decoder documents it."""


@register_decoder("classification")
class ClassificationDecoder(Decoder):
    """One learned query that cross-attends to the latents, then a linear layer (Perceiver IO, section 3.2).

    Args:
        config: The settings.
        latent_channels: D.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the decoder.

        Attributes:
            num_classes: K.
            query_channels: Q; D if None.
            num_heads: Attention heads.
            qk_channels: Width of queries and keys; D if None.
            v_channels: Width of the values; as the queries and keys if None.
            widening_factor: Of the feed-forward.
            use_query_residual: Whether the query is added to what it attended to.
            activation: Of the feed-forward.
            dropout: Probability that a channel of a residual branch is dropped in training.
            attention_dropout: Probability that an attention weight is dropped in training.
        """

        num_classes: int
        query_channels: int | None = None
        num_heads: int = 1
        qk_channels: int | None = None
        v_channels: int | None = None
        widening_factor: int = 1
        use_query_residual: bool = True
        activation: Activation = "gelu"
        dropout: float = 0.0
        attention_dropout: float = 0.0

        def __post_init__(self) -> None:
            super().__post_init__()
            _check_num_classes(self.num_classes)

    def __init__(self, config: Config, *, latent_channels: int) -> None:
        super().__init__()
        query_channels = latent_channels if config.query_channels is None else config.query_channels
        self.query = LearnedArray(1, query_channels)
        self.cross_attend = CrossAttention(
            query_channels=query_channels,
            input_channels=latent_channels,
            num_heads=config.num_heads,
            qk_channels=config.qk_channels,
            v_channels=config.v_channels,
            widening_factor=config.widening_factor,
            activation=config.activation,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            use_query_residual=config.use_query_residual,
        )
        self.output = Linear(query_channels, config.num_classes)

    def forward(self, encoded: Encoded) -> Tensor:
        """Returns (B, K) logits."""
        queries_BOQ = self.query().to(encoded.latents.dtype).expand(encoded.latents.shape[0], -1, -1)
        return self.output(self.cross_attend(queries_BOQ, encoded.latents)).squeeze(1)


@register_decoder("pooled-classification")
class PooledClassificationDecoder(Decoder):
    """Mean of the latents, then a linear layer: the query-free decoder of the original Perceiver (section 3.1).

    Args:
        config: The settings.
        latent_channels: D.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the decoder.

        Attributes:
            num_classes: K.
            use_layer_norm: Whether the mean is layer-normed before the projection.
        """

        num_classes: int
        use_layer_norm: bool = True

        def __post_init__(self) -> None:
            super().__post_init__()
            _check_num_classes(self.num_classes)

    def __init__(self, config: Config, *, latent_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(latent_channels) if config.use_layer_norm else nn.Identity()
        self.output = Linear(latent_channels, config.num_classes)

    def forward(self, encoded: Encoded) -> Tensor:
        """Returns (B, K) logits."""
        return self.output(self.norm(encoded.latents.mean(dim=1)))


def _check_num_classes(num_classes: int) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
