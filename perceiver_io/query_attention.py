"""The cross-attend of a decoder, by which output queries ask the latents: one of its own, or one that outputs share.

Shape legend: B batch, N latents, D latent channels, O output queries, Q query channels, P padding channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from perceiver_io.attention import Activation
from perceiver_io.brackets import NO_LAYERS, Layers
from perceiver_io.component import ComponentConfig
from perceiver_io.cross_attention import CrossAttention, QueryChunks
from perceiver_io.layers import LearnedArray, linear

__all__ = [
    "OutputAttention",
    "QueryAttention",
    "QueryAttentionConfig",
    "SharedAttention",
    "SharedAttentionConfig",
]


@dataclass(frozen=True, kw_only=True)
class QueryAttentionConfig(ComponentConfig):
    """Settings of the attention of output queries to the latents.

    Attributes:
        num_heads: Attention heads.
        qk_channels: Width of queries and keys; D if None.
        v_channels: Width of the values; as the queries and keys if None.
        widening_factor: Of the feed-forward.
        use_query_residual: Whether the query is added to what it attended to.
        activation: Of the feed-forward.
        dropout: Probability that a channel of a residual branch is dropped in training.
        attention_dropout: Probability that an attention weight is dropped in training.
    """

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
        for name in ("num_heads", "widening_factor"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{type(self).__qualname__}.{name} must be at least 1, got {getattr(self, name)}."
                )
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{type(self).__qualname__}.{name} must be in [0, 1), got {getattr(self, name)}."
                )

    def cross_attention(self, *, query_channels: int, latent_channels: int) -> CrossAttention:
        """Returns the cross-attend that these settings describe.

        Args:
            query_channels: Q.
            latent_channels: D.
        """
        return CrossAttention(
            query_channels=query_channels,
            input_channels=latent_channels,
            num_heads=self.num_heads,
            qk_channels=self.qk_channels,
            v_channels=self.v_channels,
            widening_factor=self.widening_factor,
            activation=self.activation,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            use_query_residual=self.use_query_residual,
        )


@dataclass(frozen=True, kw_only=True)
class SharedAttentionConfig(QueryAttentionConfig):
    """Settings of one attention that several outputs share.

    Attributes:
        outputs: Names of the outputs.
        output_channels: What each query becomes, by a linear layer that they share too, for the outputs' own heads.
        min_padding: Queries are widened to the widest output's plus so many channels, by a learned padding of each
            output.
    """

    outputs: tuple[str, ...]
    output_channels: int
    min_padding: int = 2
    use_query_residual: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.outputs or len(set(self.outputs)) != len(self.outputs):
            raise ValueError(
                f"SharedAttentionConfig.outputs must name one output or more, each once, got {self.outputs}."
            )
        for name in ("output_channels", "min_padding"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"SharedAttentionConfig.{name} must be at least 1, got {getattr(self, name)}."
                )


class QueryAttention(Protocol):
    """What a decoder needs of its attention; a `CrossAttention` is one."""

    def floats_per_query(self, *, num_queries: int, num_inputs: int) -> int:
        """Returns how many numbers a query of one sample takes at most, where so many ask so many inputs."""

    def __call__(
        self,
        queries: Tensor | QueryChunks,
        latents_BND: Tensor,
        /,
        *,
        query_mask_BN: Tensor | None = None,
        then: Layers = NO_LAYERS,
    ) -> Tensor:
        """Lets queries attend, and applies the linear layers that follow."""


class SharedAttention(nn.Module):
    """One attention to the latents for the queries of several outputs.

    As in multimodal autoencoding (Perceiver IO, section 4.3).

    Args:
        config: The settings.
        query_channels: Width of each output's queries, by name.
        latent_channels: D.
    """

    def __init__(
        self, config: SharedAttentionConfig, *, query_channels: Mapping[str, int], latent_channels: int
    ) -> None:
        super().__init__()
        width = max(query_channels.values()) + config.min_padding
        self.num_output_channels = config.output_channels
        self.padding = nn.ModuleDict(
            {name: LearnedArray(1, width - query_channels[name]) for name in sorted(query_channels)}
        )
        self.cross_attend = config.cross_attention(query_channels=width, latent_channels=latent_channels)
        self.output = linear(width, config.output_channels)

    def forward(
        self,
        queries: Tensor | QueryChunks,
        latents_BND: Tensor,
        *,
        name: str,
        query_mask_BN: Tensor | None = None,
        then: Layers = NO_LAYERS,
    ) -> Tensor:
        """Widens the queries, lets them attend, and applies the shared linear layer and those that follow.

        Args:
            queries: (B, O, Q), or chunks of them.
            latents_BND: What is asked.
            name: The output that they are queries of.
            query_mask_BN: As `CrossAttention`.
            then: As `CrossAttention`.
        """
        padding_1P: Tensor = self.padding[name]()
        layers = Layers(self.output, *then.layers)
        attended: Tensor = self.cross_attend(
            queries, latents_BND, None, padding_1P[0], query_mask_BN=query_mask_BN, then=layers
        )
        return attended

    def of(self, name: str) -> OutputAttention:
        """Returns the attention as an output sees it."""
        return OutputAttention(shared=self, name=name)


class OutputAttention:  # a plain class: torch.compile does not see through a frozen dataclass that is called
    """A shared attention as one of its outputs sees it.

    Args:
        shared: The attention.
        name: The output.
    """

    def __init__(self, *, shared: SharedAttention, name: str) -> None:
        self.shared = shared
        self.name = name

    def floats_per_query(self, *, num_queries: int, num_inputs: int) -> int:
        """Returns how many numbers a query of one sample takes at most."""
        shared = self.shared
        within = shared.cross_attend.floats_per_query(num_queries=num_queries, num_inputs=num_inputs)
        return within + shared.cross_attend.query_channels + shared.num_output_channels

    def __call__(
        self,
        queries: Tensor | QueryChunks,
        latents_BND: Tensor,
        /,
        *,
        query_mask_BN: Tensor | None = None,
        then: Layers = NO_LAYERS,
    ) -> Tensor:
        """As `SharedAttention`."""
        attended: Tensor = self.shared(
            queries, latents_BND, name=self.name, query_mask_BN=query_mask_BN, then=then
        )
        return attended
