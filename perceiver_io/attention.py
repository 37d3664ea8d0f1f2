"""Multi-head attention and the two blocks made of it.

Shape legend: B batch, H heads, N queries, M inputs, D query channels, C input channels, E query/key channels a
head, F value channels a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_layers import GradientCheckpointingLayer

from perceiver_io.layers import Linear

__all__ = [
    "Activation",
    "CrossAttention",
    "FeedForward",
    "MultiHeadAttention",
    "SelfAttention",
    "SelfAttentionBlock",
    "attention_map",
]

Activation = Literal["gelu", "gelu_tanh"]


class MultiHeadAttention(nn.Module):
    """Attention of N queries to M inputs, with query/key and value widths apart from both (Perceiver IO, appendix E).

    The fused kernel (SDPA) does the work; `attention_map` and `logits` compute explicitly what it hides.

    Args:
        query_channels: D.
        input_channels: C.
        num_heads: H; divides both widths.
        qk_channels: H * E, the width of queries and keys.
        v_channels: H * F, the width of the values.
        output_channels: Width of the result.
        dropout: Probability that an attention weight is dropped in training.
        query_gain: Factor on the initial query projection, and so on the initial logits.
        input_shares: Each input channel's share of the initial variance of keys and values; see `Linear`.
    """

    def __init__(
        self,
        *,
        query_channels: int,
        input_channels: int,
        num_heads: int,
        qk_channels: int,
        v_channels: int,
        output_channels: int,
        dropout: float = 0.0,
        query_gain: float = 1.0,
        input_shares: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"num_heads must be at least 1, got {num_heads}.")
        for name, width in (("qk_channels", qk_channels), ("v_channels", v_channels)):
            if width < 1 or width % num_heads:
                raise ValueError(f"{name} must be a positive multiple of the {num_heads} heads, got {width}.")
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = Linear(query_channels, qk_channels, gain=query_gain)
        self.key = Linear(input_channels, qk_channels, input_shares=input_shares)
        self.value = Linear(input_channels, v_channels, input_shares=input_shares)
        self.output = Linear(v_channels, output_channels)

    def forward(self, queries_BND: Tensor, inputs_BMC: Tensor, mask_BM: Tensor | None = None) -> Tensor:
        """Attends.

        Args:
            queries_BND: What asks.
            inputs_BMC: What is attended to.
            mask_BM: True where an input is real; at least one in each row.

        Returns:
            (B, N, output_channels).
        """
        attended_BHNF = scaled_dot_product_attention(
            self.split_heads(self.query(queries_BND)),
            self.split_heads(self.key(inputs_BMC)),
            self.split_heads(self.value(inputs_BMC)),
            attn_mask=None if mask_BM is None else mask_BM[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.output(attended_BHNF.transpose(1, 2).flatten(2))

    def split_heads(self, projected_BNX: Tensor) -> Tensor:
        """(B, N, H * E) -> (B, H, N, E)."""
        return projected_BNX.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def logits(self, queries_BND: Tensor, keys_BMX: Tensor) -> Tensor:
        """Scaled dot products of the projected queries with keys that are projected already.

        Args:
            queries_BND: What asks, before the query projection.
            keys_BMX: (B, M, H * E) or (M, H * E) projected keys, or any part of them: logits are linear in the keys.

        Returns:
            (B, H, N, M) logits, in float32 at least.
        """
        queries_BHNE = self.split_heads(self.query(queries_BND))
        keys_BHME = self.split_heads(keys_BMX.expand(queries_BND.shape[0], *keys_BMX.shape[-2:]))
        dtype = torch.promote_types(queries_BHNE.dtype, torch.float32)
        scale = 1 / math.sqrt(queries_BHNE.shape[-1])
        return torch.einsum("bhne,bhme->bhnm", queries_BHNE.to(dtype) * scale, keys_BHME.to(dtype))


def attention_map(logits_BHNM: Tensor, mask_BM: Tensor | None = None) -> Tensor:
    """Softmax of the logits over the real inputs: (B, H, N, M), zero where an input is masked."""
    if mask_BM is not None:
        logits_BHNM = logits_BHNM.masked_fill(~mask_BM[:, None, None, :], -math.inf)
    return logits_BHNM.softmax(dim=-1)


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them, the hidden one `widening_factor` times as wide."""

    def __init__(self, num_channels: int, *, widening_factor: int, activation: Activation) -> None:
        super().__init__()
        self.hidden = Linear(num_channels, widening_factor * num_channels)
        self.activation = nn.GELU(approximate="tanh" if activation == "gelu_tanh" else "none")
        self.output = Linear(widening_factor * num_channels, num_channels)

    def forward(self, x_BND: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.output(self.activation(self.hidden(x_BND)))


class CrossAttention(GradientCheckpointingLayer):
    """Pre-norm cross-attention and feed-forward (Perceiver IO, section 3.1 and appendix E.2).

    Args:
        query_channels: D, also the width of the result.
        input_channels: C.
        num_heads: Attention heads.
        qk_channels: Width of queries and keys; the inputs' by default, as published.
        v_channels: Width of the values; as `qk_channels` by default, as published.
        widening_factor: Of the feed-forward.
        activation: Of the feed-forward.
        dropout: Probability that a channel of either residual branch is dropped in training.
        attention_dropout: Probability that an attention weight is dropped in training.
        query_gain: Factor on the initial query projection.
        input_shares: Each input channel's share of the initial variance of keys and values.
        use_query_residual: Whether the queries are added to what they attended to.
    """

    def __init__(
        self,
        *,
        query_channels: int,
        input_channels: int,
        num_heads: int,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        widening_factor: int = 1,
        activation: Activation = "gelu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        query_gain: float = 1.0,
        input_shares: Sequence[float] | None = None,
        use_query_residual: bool = True,
    ) -> None:
        super().__init__()
        qk_channels = input_channels if qk_channels is None else qk_channels
        self.use_query_residual = use_query_residual
        self.query_norm = nn.LayerNorm(query_channels)
        self.input_norm = nn.LayerNorm(input_channels)
        self.attention = MultiHeadAttention(
            query_channels=query_channels,
            input_channels=input_channels,
            num_heads=num_heads,
            qk_channels=qk_channels,
            v_channels=qk_channels if v_channels is None else v_channels,
            output_channels=query_channels,
            dropout=attention_dropout,
            query_gain=query_gain,
            input_shares=input_shares,
        )
        self.feed_forward_norm = nn.LayerNorm(query_channels)
        self.feed_forward = FeedForward(
            query_channels, widening_factor=widening_factor, activation=activation
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries_BND: Tensor, inputs_BMC: Tensor, mask_BM: Tensor | None = None) -> Tensor:
        """Returns what the queries became, (B, N, D)."""
        attended_BND = self.dropout(
            self.attention(self.query_norm(queries_BND), self.input_norm(inputs_BMC), mask_BM)
        )
        x_BND = queries_BND + attended_BND if self.use_query_residual else attended_BND
        return x_BND + self.dropout(self.feed_forward(self.feed_forward_norm(x_BND)))


class SelfAttention(GradientCheckpointingLayer):
    """Pre-norm self-attention and feed-forward of the latents, as in GPT-2 (Perceiver, section 3.1).

    Args:
        num_channels: D.
        num_heads: Attention heads.
        qk_channels: Width of queries and keys; D by default.
        v_channels: Width of the values; as `qk_channels` by default.
        widening_factor: Of the feed-forward.
        activation: Of the feed-forward.
        dropout: Probability that a channel of either residual branch is dropped in training.
        attention_dropout: Probability that an attention weight is dropped in training.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        num_heads: int,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        widening_factor: int = 1,
        activation: Activation = "gelu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        qk_channels = num_channels if qk_channels is None else qk_channels
        self.norm = nn.LayerNorm(num_channels)
        self.attention = MultiHeadAttention(
            query_channels=num_channels,
            input_channels=num_channels,
            num_heads=num_heads,
            qk_channels=qk_channels,
            v_channels=qk_channels if v_channels is None else v_channels,
            output_channels=num_channels,
            dropout=attention_dropout,
        )
        self.feed_forward_norm = nn.LayerNorm(num_channels)
        self.feed_forward = FeedForward(num_channels, widening_factor=widening_factor, activation=activation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, latents_BND: Tensor) -> Tensor:
        """Returns the refined latents, (B, N, D)."""
        normed_BND = self.norm(latents_BND)
        x_BND = latents_BND + self.dropout(self.attention(normed_BND, normed_BND))
        return x_BND + self.dropout(self.feed_forward(self.feed_forward_norm(x_BND)))


class SelfAttentionBlock(nn.Module):
    """Several self-attentions in a row: the latent transformer between two cross-attends."""

    def __init__(self, layers: list[SelfAttention]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, latents_BND: Tensor) -> Tensor:
        """Returns the refined latents, (B, N, D)."""
        for layer in self.layers:
            latents_BND = layer(latents_BND)
        return latents_BND
