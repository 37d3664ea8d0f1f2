"""Decoders: from latents to outputs, by output queries or by pooling.

Shape legend: B batch, N latents, D latent channels, O output queries, Q query channels, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from perceiver_io.byte_array import ByteArray
from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import check_finite
from perceiver_io.layers import LearnedArray, Linear
from perceiver_io.query_attention import QueryAttention, QueryAttentionConfig
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

    Some decoders take more, and get it where the model's configuration says so:

    - An output that shares its attention (`SharedAttentionConfig`) needs a decoder with `num_query_channels`. It is
      built with ``attended_channels``, the width of what its queries become, and called with ``attention``.
    - A configuration with a field ``tied_to`` names an input; the decoder is built with ``embedding``, the table of
      that input's tokens.
    - A decoder whose class says ``takes_points`` is called with ``points``, ``grid``, ``chunk_size``,
      ``memory_budget`` and ``on_decoded``; see `DenseDecoder`.
    """

    Config: ClassVar[type[ComponentConfig]]
    takes_points: ClassVar[bool] = False

    @abstractmethod
    def forward(self, encoded: Encoded) -> Tensor:
        """Decodes (B, …), as the decoder documents it."""


@register_decoder("classification")
class ClassificationDecoder(Decoder):
    """One learned query that cross-attends to the latents, then a linear layer (Perceiver IO, section 3.2).

    Args:
        config: The settings.
        latent_channels: D.
        attended_channels: Width of what a shared attention makes of the query; None for an attention of its own.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(QueryAttentionConfig):
        """Settings of the decoder; those of its attention too, unless that is shared.

        Attributes:
            num_classes: K.
            query_channels: Q; D if None.
        """

        num_classes: int
        query_channels: int | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            _check_num_classes(self.num_classes)

    def __init__(self, config: Config, *, latent_channels: int, attended_channels: int | None = None) -> None:
        super().__init__()
        self.num_query_channels = latent_channels if config.query_channels is None else config.query_channels
        self.query = LearnedArray(1, self.num_query_channels)
        if attended_channels is None:
            self.cross_attend = config.cross_attention(
                query_channels=self.num_query_channels, latent_channels=latent_channels
            )
            attended_channels = self.num_query_channels
        self.output = Linear(attended_channels, config.num_classes)

    def forward(self, encoded: Encoded, *, attention: QueryAttention | None = None) -> Tensor:
        """Returns (B, K) logits.

        Args:
            encoded: The latents.
            attention: The shared attention, if it has none of its own.
        """
        attention = self.cross_attend if attention is None else attention
        queries_BOQ = self.query().to(encoded.latents.dtype).expand(encoded.latents.shape[0], -1, -1)
        latents = attention.prepare(encoded.latents, num_queries=1)
        return attention(queries_BOQ, latents, then=(self.output,)).squeeze(1)


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
