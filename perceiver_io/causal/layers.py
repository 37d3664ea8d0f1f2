"""The layers of a causal encoder: a cross-attend and self-attends, with rotary positions and a cache.

Shape legend: B batch, M elements, N latents, C channels of an element, D latent channels, H heads, E channels a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.cache_utils import CacheLayerMixin
from transformers.modeling_layers import GradientCheckpointingLayer

from perceiver_io.attention import Activation, FeedForward
from perceiver_io.causal.causal_attention import causal_attention, causal_mask
from perceiver_io.causal.rotary import Rotation
from perceiver_io.layers import linear

__all__ = [
    "AttendSettings",
    "Biases",
    "CausalAttention",
    "CausalCrossAttend",
    "CausalSelfAttend",
    "LatentKeys",
]

Biases = Literal["all", "cross_attend_output", "none"]
"""Which linear layers have a bias: all, as in the release of Perceiver AR; only the cross-attend's output; or none."""

LatentKeys = Literal["input_norm", "query_norm"]
"""Which layer norm the cross-attend's keys and values of the latents' own elements pass: that of all other elements; or
that of the queries, as in krasserm's implementation."""


class CausalAttention(nn.Module):
    """Multi-head attention in steps, so that keys and values can be cached.

    Args:
        query_channels: D.
        input_channels: C.
        num_heads: H; divides `width`.
        width: H * E, of queries, keys and values.
        output_channels: Width of the result.
        bias: Whether queries, keys and values have a bias.
        output_bias: Whether the result has one.
        dropout: Probability that an attention weight is dropped in training.
        output_gain: Factor on the initial output layer.
    """

    def __init__(
        self,
        *,
        query_channels: int,
        input_channels: int,
        num_heads: int,
        width: int,
        output_channels: int,
        bias: bool,
        output_bias: bool,
        dropout: float,
        output_gain: float,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = linear(query_channels, width, bias=bias)
        self.key = linear(input_channels, width, bias=bias)
        self.value = linear(input_channels, width, bias=bias)
        self.output = linear(width, output_channels, bias=output_bias, gain=output_gain)

    def forward(
        self,
        queries_BND: Tensor,
        inputs_BMC: Tensor,
        *,
        query_rotation: Rotation | None,
        key_rotation: Rotation | None,
        mask_BM: Tensor | None,
        cache: CacheLayerMixin | None,
    ) -> Tensor:
        """Attends.

        Args:
            queries_BND: The last N elements, or latents.
            inputs_BMC: What is attended to; with a cache, what is added to that which it holds.
            query_rotation: By which queries are turned; None for not at all.
            key_rotation: By which the keys of `inputs_BMC` are turned.
            mask_BM: True where an input, cached ones included, may be seen.
            cache: Holds keys and values from call to call.

        Returns:
            (B, N, output_channels).
        """
        queries_BHNE, keys_BHME = self.queries_and_keys(
            queries_BND, inputs_BMC, query_rotation=query_rotation, key_rotation=key_rotation
        )
        values_BHME = self._split(self.value(inputs_BMC))
        if cache is not None:
            keys_BHME, values_BHME = cache.update(keys_BHME, values_BHME)
        attended_BHNE = causal_attention(
            queries_BHNE, keys_BHME, values_BHME, mask_BM, dropout=self.dropout if self.training else 0.0
        )
        return self.output(attended_BHNE.transpose(1, 2).flatten(2))

    def weights(
        self,
        queries_BND: Tensor,
        inputs_BMC: Tensor,
        *,
        query_rotation: Rotation | None,
        key_rotation: Rotation | None,
        mask_BM: Tensor | None,
        cache: CacheLayerMixin | None,
    ) -> Tensor:
        """Returns what `forward` attends with, without dropout, (B, H, N, M); arguments as there.

        Raises:
            ValueError: There is a cache.
        """
        if cache is not None:
            raise ValueError(
                "With a cache there are no attention weights to return, as it holds keys of earlier calls: pass "
                "use_cache=False, or leave output_attentions out."
            )
        queries_BHNE, keys_BHME = self.queries_and_keys(
            queries_BND, inputs_BMC, query_rotation=query_rotation, key_rotation=key_rotation
        )
        logits_BHNM = queries_BHNE @ keys_BHME.transpose(2, 3) / queries_BHNE.shape[-1] ** 0.5
        num_queries, num_keys = logits_BHNM.shape[2:]
        seen = causal_mask(num_queries, num_keys, mask_BM, like=logits_BHNM)
        return logits_BHNM.masked_fill(~seen, -torch.inf).softmax(dim=-1)

    def queries_and_keys(
        self,
        queries_BND: Tensor,
        inputs_BMC: Tensor,
        *,
        query_rotation: Rotation | None,
        key_rotation: Rotation | None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the projected and turned queries (B, H, N, E) and keys (B, H, M, E); arguments as `forward`."""
        queries_BHNE, keys_BHME = self._split(self.query(queries_BND)), self._split(self.key(inputs_BMC))
        if query_rotation is not None and key_rotation is not None:
            return query_rotation(queries_BHNE), key_rotation(keys_BHME)
        return queries_BHNE, keys_BHME

    def _split(self, x_BMX: Tensor) -> Tensor:
        return x_BMX.view(*x_BMX.shape[:2], self.num_heads, -1).transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class AttendSettings:
    """What the cross-attend and the self-attends of an encoder have in common.

    Attributes:
        channels: D.
        num_heads: H.
        biases: Which layers have one.
        activation: Of the feed-forward.
        dropout: Probability that a channel of either residual branch is dropped in training.
        attention_dropout: Probability that an attention weight is dropped in training.
        output_gain: Factor on the initial last layer of both branches.
    """

    channels: int
    num_heads: int
    biases: Biases
    activation: Activation
    dropout: float
    attention_dropout: float
    output_gain: float


class _CausalAttend(GradientCheckpointingLayer):
    """An attention and a feed-forward, each added to what it is given."""

    def __init__(
        self, settings: AttendSettings, *, input_channels: int, output_bias: bool, widening_factor: int
    ) -> None:
        super().__init__()
        self.attention = CausalAttention(
            query_channels=settings.channels,
            input_channels=input_channels,
            num_heads=settings.num_heads,
            width=input_channels,
            output_channels=settings.channels,
            bias=settings.biases == "all",
            output_bias=output_bias,
            dropout=settings.attention_dropout,
            output_gain=settings.output_gain,
        )
        self.feed_forward_norm = nn.LayerNorm(settings.channels)
        self.feed_forward = FeedForward(
            settings.channels,
            widening_factor=widening_factor,
            activation=settings.activation,
            bias=settings.biases == "all",
            output_gain=settings.output_gain,
        )
        self.dropout = nn.Dropout(settings.dropout) if settings.dropout else nn.Identity()

    def added(self, latents_BND: Tensor, attended_BND: Tensor) -> Tensor:
        """Adds what was attended to, then the feed-forward of the sum."""
        x_BND = latents_BND + self.dropout(attended_BND)
        sum_BND: Tensor = x_BND + self.dropout(self.feed_forward(self.feed_forward_norm(x_BND)))
        return sum_BND

    def attention_weights(self, *args: Any, **kwargs: Any) -> Tensor:
        """Returns the weights that `forward` attends with, (B, H, N, M); arguments as there, but no cache."""
        asked, rest = self._asked(*args, **kwargs)
        return self.attention.weights(*asked, **rest)

    def _asked(self, *args: Any, **kwargs: Any) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
        """The attention's arguments for those of `forward`: what asks and what is asked, then the rest."""
        raise NotImplementedError


class CausalCrossAttend(_CausalAttend):
    """Latents on the last N elements attend to all M, each up to its own (Perceiver AR, section 3).

    Args:
        settings: What it has in common with the self-attends.
        input_channels: C; queries, keys and values are as wide.
        latent_keys: Which norm keys of the latents' own elements pass.
        widening_factor: Of the feed-forward.
    """

    def __init__(
        self,
        settings: AttendSettings,
        *,
        input_channels: int,
        latent_keys: LatentKeys,
        widening_factor: int,
    ) -> None:
        super().__init__(
            settings,
            input_channels=input_channels,
            output_bias=settings.biases != "none",
            widening_factor=widening_factor,
        )
        self.latent_keys = latent_keys
        self.query_norm = nn.LayerNorm(settings.channels)
        self.input_norm = nn.LayerNorm(input_channels)

    def forward(
        self,
        latents_BND: Tensor,
        elements_BMC: Tensor,
        *,
        rotation: Rotation | None,
        mask_BM: Tensor | None,
        cache: CacheLayerMixin | None = None,
    ) -> Tensor:
        """Returns the latents, (B, N, D).

        Args:
            latents_BND: What stands on the last N elements.
            elements_BMC: All elements; with a cache, those that it does not hold.
            rotation: Of these elements.
            mask_BM: True where an element, cached ones included, is real.
            cache: Holds keys and values of the elements before.
        """
        asked, rest = self._asked(latents_BND, elements_BMC, rotation=rotation, mask_BM=mask_BM, cache=cache)
        return self.added(latents_BND, self.attention(*asked, **rest))

    def _asked(
        self,
        latents_BND: Tensor,
        elements_BMC: Tensor,
        *,
        rotation: Rotation | None,
        mask_BM: Tensor | None,
        cache: CacheLayerMixin | None = None,
    ) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
        queries_BND, inputs_BMC = self.normed(latents_BND, elements_BMC)
        return (queries_BND, inputs_BMC), {
            "query_rotation": None if rotation is None else rotation.last(latents_BND.shape[1]),
            "key_rotation": rotation,
            "mask_BM": mask_BM,
            "cache": cache,
        }

    def normed(self, latents_BND: Tensor, elements_BMC: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what queries (B, N, D), and keys and values (B, M, C), are made of."""
        queries_BND = self.query_norm(latents_BND)
        if self.latent_keys == "input_norm":
            return queries_BND, self.input_norm(elements_BMC)
        before = elements_BMC.shape[1] - latents_BND.shape[1]
        if not before:
            return queries_BND, queries_BND
        return queries_BND, torch.cat([self.input_norm(elements_BMC[:, :before]), queries_BND], dim=1)


class CausalSelfAttend(_CausalAttend):
    """Pre-norm self-attention of the latents, each up to its own, and a feed-forward.

    Args:
        settings: What it has in common with the cross-attend.
        widening_factor: Of the feed-forward.
    """

    def __init__(self, settings: AttendSettings, *, widening_factor: int) -> None:
        super().__init__(
            settings,
            input_channels=settings.channels,
            output_bias=settings.biases == "all",
            widening_factor=widening_factor,
        )
        self.norm = nn.LayerNorm(settings.channels)

    def forward(
        self,
        latents_BND: Tensor,
        *,
        rotation: Rotation | None,
        mask_BN: Tensor | None,
        cache: CacheLayerMixin | None = None,
    ) -> Tensor:
        """Returns the refined latents, (B, N, D).

        Args:
            latents_BND: The latents; with a cache, those that it does not hold.
            rotation: Of these latents; None where this layer has no positions.
            mask_BN: True where a latent, cached ones included, is real.
            cache: Holds keys and values of the latents before.
        """
        asked, rest = self._asked(latents_BND, rotation=rotation, mask_BN=mask_BN, cache=cache)
        return self.added(latents_BND, self.attention(*asked, **rest))

    def _asked(
        self,
        latents_BND: Tensor,
        *,
        rotation: Rotation | None,
        mask_BN: Tensor | None,
        cache: CacheLayerMixin | None = None,
    ) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
        normed_BND = self.norm(latents_BND)
        return (normed_BND, normed_BND), {
            "query_rotation": rotation,
            "key_rotation": rotation,
            "mask_BM": mask_BN,
            "cache": cache,
        }
