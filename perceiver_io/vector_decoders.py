"""Decoders of one vector for each sample: out of a learned query, or the mean of the latents.

Shape legend: B batch, N latents, D latent channels, O output queries, Q query channels, K classes, V values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from perceiver_io.brackets import Layers
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
from perceiver_io.layers import LearnedArray, linear
from perceiver_io.query_attention import QueryAttentionConfig
from perceiver_io.registry import register_decoder

__all__ = [
    "ClassificationDecoder",
    "PooledClassificationDecoder",
    "RegressionDecoder",
    "VectorDecoder",
    "VectorDecoderConfig",
]


@dataclass(frozen=True, kw_only=True)
class VectorDecoderConfig(DecoderConfig, QueryAttentionConfig):
    """Settings of a `VectorDecoder`; those of its attention too, unless that is shared.

    Attributes:
        query_channels: Q; D if None.
    """

    query_channels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "query_channels")

    def needs(self) -> DecoderNeeds:
        """Returns that it may share an attention, and needs nothing else."""
        return DecoderNeeds(can_share_attention=True)


class VectorDecoder(Decoder):
    """One learned query that cross-attends to the latents, then a linear layer (Perceiver IO, section 3.2).

    Args:
        config: The settings.
        parts: D, and the width that a shared attention gives.
        num_values: V, width of the vector.
    """

    num_query_channels: int

    def __init__(self, config: VectorDecoderConfig, parts: DecoderParts, *, num_values: int) -> None:
        super().__init__()
        self.num_query_channels = (
            parts.latent_channels if config.query_channels is None else config.query_channels
        )
        self.query = LearnedArray(1, self.num_query_channels)
        attended_channels = parts.attended_channels
        if attended_channels is None:
            self.cross_attend = config.cross_attention(
                query_channels=self.num_query_channels, latent_channels=parts.latent_channels
            )
            attended_channels = self.num_query_channels
        self.output = linear(attended_channels, num_values)

    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> Tensor:
        """Returns (B, V).

        Args:
            encoded: The latents.
            request: The shared attention, if it has none of its own.
        """
        attention = self.cross_attend if request.attention is None else request.attention
        queries_BOQ = self.query().to(encoded.latents.dtype).expand(encoded.latents.shape[0], -1, -1)
        return attention(queries_BOQ, encoded.latents, then=Layers(self.output)).squeeze(1)


@register_decoder("classification")
class ClassificationDecoder(VectorDecoder):
    """(B, K) logits of classes, out of one learned query.

    Args:
        config: The settings.
        parts: D, and the width that a shared attention gives.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(VectorDecoderConfig):
        """Settings of the decoder.

        Attributes:
            num_classes: K.
        """

        num_classes: int

        def __post_init__(self) -> None:
            super().__post_init__()
            _check_num_classes(self.num_classes)

    def __init__(self, config: Config, parts: DecoderParts) -> None:
        super().__init__(config, parts, num_values=config.num_classes)


@register_decoder("regression")
class RegressionDecoder(VectorDecoder):
    """(B, V) numbers, out of one learned query: an age, the three coordinates of a place.

    What the linear layer gives is multiplied with `scale` and moved by `offset`: with the deviation and the mean of the
    targets, numbers of any unit are learned as well as others.

    Args:
        config: The settings.
        parts: D, and the width that a shared attention gives.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(VectorDecoderConfig):
        """Settings of the decoder.

        Attributes:
            num_outputs: V.
            offset: Of each number, or one for all.
            scale: Of each number, or one for all; above zero.
        """

        num_outputs: int = 1
        offset: tuple[float, ...] = (0.0,)
        scale: tuple[float, ...] = (1.0,)

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(self, "num_outputs")
            for name in ("offset", "scale"):
                values = getattr(self, name)
                if len(values) not in (1, self.num_outputs) or not all(map(math.isfinite, values)):
                    raise ValueError(
                        f"RegressionDecoder.Config.{name} must be one finite number, or {self.num_outputs}, got "
                        f"{values}."
                    )
            if min(self.scale) <= 0:
                raise ValueError(f"RegressionDecoder.Config.scale must be above zero, got {self.scale}.")

    def __init__(self, config: Config, parts: DecoderParts) -> None:
        super().__init__(config, parts, num_values=config.num_outputs)
        self.config = config

    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> Tensor:
        """Returns (B, V); the arguments are those of `VectorDecoder`."""
        values_BV = super().forward(encoded, request)
        if self.config.scale != (1.0,):
            values_BV = values_BV * self.scale(values_BV)
        if self.config.offset != (0.0,):
            values_BV = values_BV + values_BV.new_tensor(self.config.offset)
        return values_BV

    def scale(self, like: Tensor) -> Tensor:
        """Returns the scale, (1,) or (V,), in the type and on the device of another tensor."""
        return like.new_tensor(self.config.scale)


@register_decoder("pooled-classification")
class PooledClassificationDecoder(Decoder):
    """Mean of the latents, then a linear layer: the query-free decoder of the original Perceiver (section 3.1).

    Args:
        config: The settings.
        parts: D.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(DecoderConfig):
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

    def __init__(self, config: Config, parts: DecoderParts) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(parts.latent_channels) if config.use_layer_norm else nn.Identity()
        self.output = linear(parts.latent_channels, config.num_classes)

    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> Tensor:
        """Returns (B, K) logits."""
        return self.output(self.norm(encoded.latents.mean(dim=1)))


def _check_num_classes(num_classes: int) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
