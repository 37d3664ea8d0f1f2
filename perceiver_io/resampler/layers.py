"""A layer of the resampler: latents that attend to features and to each other at once, then a feed-forward.

Shape legend: B batch, N latents, D latent channels, M inputs, C input channels, K keys: M, or M + N; G groups of heads
with keys and values of their own, R heads of a group, E channels a head.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from perceiver_io.attention import Activation, FeedForward
from perceiver_io.fused_attention import fused_attention
from perceiver_io.layers import linear

__all__ = [
    "FeedForwardKind",
    "GatedFeedForward",
    "Norm",
    "NormPosition",
    "ResamplerAttention",
    "ResamplerLayer",
    "norm_layer",
]

Norm = Literal["layer", "rms"]
NormPosition = Literal["before", "after", "none"]
FeedForwardKind = Literal[Activation, "geglu", "swiglu"]
"""Two linear layers with an activation between them, or three, of which one gates another (Shazeer, 2020)."""

_GATES: dict[str, type[nn.Module]] = {"geglu": nn.GELU, "swiglu": nn.SiLU}


def norm_layer(kind: Norm, num_channels: int, eps: float | None = None) -> nn.Module:
    """Returns a layer norm or a root-mean-square norm; `eps` is 1e-5 of the first, 1e-6 of the second if None."""
    if kind == "rms":
        return nn.RMSNorm(num_channels, eps=1e-6 if eps is None else eps)
    return nn.LayerNorm(num_channels, eps=1e-5 if eps is None else eps)


class GatedFeedForward(nn.Module):
    """Two linear layers side by side, one through an activation and a factor on the other, and a third on the product.

    Args:
        num_channels: Of what goes in.
        hidden_channels: Of the two.
        output_channels: Of the third.
        kind: "geglu" or "swiglu": the activation is GELU, or SiLU.
        bias: Whether the layers have one.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        hidden_channels: int,
        output_channels: int,
        kind: Literal["geglu", "swiglu"],
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.gate = linear(num_channels, hidden_channels, bias=bias)
        self.hidden = linear(num_channels, hidden_channels, bias=bias)
        self.activation = _GATES[kind]()
        self.output = linear(hidden_channels, output_channels, bias=bias)

    def forward(self, x_BNC: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, output_channels)."""
        return self.output(self.activation(self.gate(x_BNC)) * self.hidden(x_BNC))


def _feed_forward(
    kind: FeedForwardKind, num_channels: int, *, widening_factor: float, bias: bool
) -> nn.Module:
    if kind == "geglu" or kind == "swiglu":
        hidden_channels = round(widening_factor * num_channels)
        return GatedFeedForward(
            num_channels, hidden_channels=hidden_channels, output_channels=num_channels, kind=kind, bias=bias
        )
    return FeedForward(num_channels, widening_factor=widening_factor, activation=kind, bias=bias)


class ResamplerAttention(nn.Module):
    """Attention without biases, in which groups of heads may share their keys and values (Ainslie et al., 2023).

    Args:
        query_channels: D, also the width of the result.
        input_channels: C.
        num_heads: G * R.
        num_kv_heads: G.
        head_channels: E.
        qk_norm: The norm that the queries and keys of each head go through, if any.
        norm_eps: Of these norms.
        dropout: Probability that an attention weight is dropped in training.
    """

    def __init__(
        self,
        *,
        query_channels: int,
        input_channels: int,
        num_heads: int,
        num_kv_heads: int,
        head_channels: int,
        qk_norm: Norm | None = None,
        norm_eps: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_kv_heads = num_kv_heads
        self.head_channels = head_channels
        self.dropout = dropout
        self.query = linear(query_channels, num_heads * head_channels, bias=False)
        self.key = linear(input_channels, num_kv_heads * head_channels, bias=False)
        self.value = linear(input_channels, num_kv_heads * head_channels, bias=False)
        self.output = linear(num_heads * head_channels, query_channels, bias=False)
        self.query_norm: nn.Module = nn.Identity()
        self.key_norm: nn.Module = nn.Identity()
        if qk_norm is not None:
            self.query_norm = norm_layer(qk_norm, head_channels, norm_eps)
            self.key_norm = norm_layer(qk_norm, head_channels, norm_eps)

    def forward(self, queries_BND: Tensor, inputs_BKC: Tensor, mask_BK: Tensor | None = None) -> Tensor:
        """Attends.

        Args:
            queries_BND: What asks.
            inputs_BKC: What is attended to.
            mask_BK: True where an input is real.

        Returns:
            (B, N, D).
        """
        groups = (self.num_kv_heads, -1, self.head_channels)
        queries_BNGRE = self.query_norm(self.query(queries_BND).unflatten(-1, groups))
        keys_BKGE = self.key_norm(self.key(inputs_BKC).unflatten(-1, groups[::2]))
        values_BKGE = self.value(inputs_BKC).unflatten(-1, groups[::2])
        # To keys that heads share, the queries of all of these heads are so many queries of one.
        queries_BGRNE = queries_BNGRE.permute(0, 2, 3, 1, 4)
        attended_BGXE = fused_attention(
            queries_BGRNE.flatten(2, 3),
            keys_BKGE.transpose(1, 2),
            values_BKGE.transpose(1, 2),
            mask_BK,
            scale=1 / math.sqrt(self.head_channels),
            dropout=self.dropout if self.training else 0.0,
        )
        attended_BGRNE = attended_BGXE.unflatten(2, queries_BGRNE.shape[2:4])
        return self.output(attended_BGRNE.permute(0, 3, 1, 2, 4).flatten(2))


class ResamplerLayer(GradientCheckpointingLayer):
    """Latents attend to features, beside which they may stand themselves, and go through a feed-forward.

    Args:
        num_channels: D.
        input_channels: C; D where the latents are among the keys.
        latents_among_keys: Whether the latents also attend to each other, in the same attention (Flamingo, 2.1).
        num_heads: Attention heads.
        num_kv_heads: Heads with keys and values of their own.
        head_channels: Channels of each head.
        qk_norm: Whether queries and keys of each head go through a norm.
        feed_forward: Its kind.
        feed_forward_bias: Whether its layers have biases.
        widening_factor: How many times as wide as the latents its hidden layer is.
        norm: Its kind.
        norm_eps: Of all norms.
        norm_position: Norms stand "before" the attention and the feed-forward, of the inputs too; "after" each sum, of
            the latents alone; or there are "none".
        dropout: Probability that a channel of either residual branch is dropped in training.
        attention_dropout: Probability that an attention weight is dropped in training.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        input_channels: int,
        latents_among_keys: bool,
        num_heads: int,
        num_kv_heads: int,
        head_channels: int,
        qk_norm: bool,
        feed_forward: FeedForwardKind,
        feed_forward_bias: bool,
        widening_factor: float,
        norm: Norm,
        norm_eps: float | None,
        norm_position: NormPosition,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self.latents_among_keys = latents_among_keys
        self.norm_position = norm_position

        def norm_of(channels: int, *, there: bool) -> nn.Module:
            return norm_layer(norm, channels, norm_eps) if there else nn.Identity()

        self.input_norm = norm_of(input_channels, there=norm_position == "before")
        self.latent_norm = norm_of(num_channels, there=norm_position != "none")
        self.attention = ResamplerAttention(
            query_channels=num_channels,
            input_channels=input_channels,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_channels=head_channels,
            qk_norm=norm if qk_norm else None,
            norm_eps=norm_eps,
            dropout=attention_dropout,
        )
        self.feed_forward_norm = norm_of(num_channels, there=norm_position != "none")
        self.feed_forward = _feed_forward(
            feed_forward, num_channels, widening_factor=widening_factor, bias=feed_forward_bias
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, latents_BND: Tensor, inputs_BMC: Tensor, mask_BK: Tensor | None = None) -> Tensor:
        """Refines the latents.

        Args:
            latents_BND: The latents.
            inputs_BMC: What they read.
            mask_BK: True where a key is real: an input, then, if they are among the keys, a latent.

        Returns:
            (B, N, D).
        """
        if self.norm_position == "after":
            x_BND = self.latent_norm(latents_BND + self._attended(latents_BND, inputs_BMC, mask_BK))
            return self.feed_forward_norm(x_BND + self.dropout(self.feed_forward(x_BND)))
        x_BND = latents_BND + self._attended(self.latent_norm(latents_BND), inputs_BMC, mask_BK)
        return x_BND + self.dropout(self.feed_forward(self.feed_forward_norm(x_BND)))

    def _attended(self, latents_BND: Tensor, inputs_BMC: Tensor, mask_BK: Tensor | None) -> Tensor:
        keys_BKC = self.input_norm(inputs_BMC)
        if self.latents_among_keys:
            keys_BKC = torch.cat([keys_BKC, latents_BND], dim=1)
        return self.dropout(self.attention(latents_BND, keys_BKC, mask_BK))
