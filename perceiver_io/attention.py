"""Multi-head attention and the two blocks made of it.

Shape legend: B batch, H heads, N queries, M inputs, D query channels, C input channels, E query/key channels a
head, F value channels a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from perceiver_io.brackets import Brackets, choose_brackets
from perceiver_io.fused_attention import attention_map, fused_attention
from perceiver_io.layers import linear
from perceiver_io.plain import is_plain

__all__ = [
    "Activation",
    "FeedForward",
    "MultiHeadAttention",
    "PreparedInputs",
    "SelfAttention",
    "SelfAttentionBlock",
]

Activation = Literal["gelu", "gelu_tanh", "relu", "squared_relu"]
"""GELU, exact or as the approximation of the original release; ReLU; or its square, as Perceiver AR has it."""


@dataclass(frozen=True, kw_only=True)
class PreparedInputs:
    """What queries meet: made once by `MultiHeadAttention.prepare`, used as often as needed.

    Attributes:
        keys: (B, H, M, X), X as wide as the brackets have it.
        values: (B, H, M, Y).
        mask: (B, M) bool, True where an input is real; None when all are.
        brackets: Where the projections were put.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None
    brackets: Brackets


class MultiHeadAttention(nn.Module):
    """Attention of N queries to M inputs, with query/key and value widths apart from both (Perceiver IO, appendix E).

    The fused kernel (SDPA) does the work; `attention_map` and `logits` compute explicitly what it hides. With one
    head, the projections are bracketed as it is cheapest; see `brackets.py`.

    Args:
        query_channels: D.
        input_channels: C.
        num_heads: H; divides both widths.
        qk_channels: H * E, the width of queries and keys.
        v_channels: H * F, the width of the values.
        output_channels: Width of the result.
        dropout: Probability that an attention weight is dropped in training.
        query_gain: Factor on the initial query projection, and so on the initial logits.
        input_shares: Each input channel's share of the initial variance of keys and values; see `LinearStart`.
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
        # The layers may be replaced by others, which need not say how wide they are.
        self.widths = {
            "query_channels": query_channels,
            "input_channels": input_channels,
            "qk_channels": qk_channels,
            "v_channels": v_channels,
            "output_channels": output_channels,
        }
        self.query = linear(query_channels, qk_channels, gain=query_gain)
        self.key = linear(input_channels, qk_channels, input_shares=input_shares)
        self.value = linear(input_channels, v_channels, input_shares=input_shares)
        self.output = linear(v_channels, output_channels)

    def forward(
        self,
        queries_BND: Tensor,
        inputs: Tensor | PreparedInputs,
        mask_BM: Tensor | None = None,
        *,
        query_mask_BN: Tensor | None = None,
    ) -> Tensor:
        """Attends.

        Args:
            queries_BND: What asks.
            inputs: What is attended to, (B, M, C), or what `prepare` made of it.
            mask_BM: True where an input is real; at least one in each row. Goes with inputs that are not prepared.
            query_mask_BN: False where a query attends to nothing, and gets the output layer's bias.

        Returns:
            (B, N, output_channels).

        Raises:
            ValueError: The mask is not (B, M) bool.
        """
        if isinstance(inputs, Tensor):
            inputs = self.prepare(inputs, mask_BM, num_queries=queries_BND.shape[1])
        return self._attend(queries_BND, inputs, query_mask_BN)

    def prepare(
        self, inputs_BMC: Tensor, mask_BM: Tensor | None = None, *, num_queries: int
    ) -> PreparedInputs:
        """Computes what any number of queries will meet, for any number of calls.

        Args:
            inputs_BMC: What is attended to.
            mask_BM: As `forward`.
            num_queries: How many queries of a sample will ask in all; decides the brackets.

        Raises:
            ValueError: The mask is not (B, M) bool.
        """
        if mask_BM is not None and (mask_BM.shape != inputs_BMC.shape[:2] or mask_BM.dtype != torch.bool):
            raise ValueError(
                f"The mask of inputs {tuple(inputs_BMC.shape)} must be (B, M) bool, got {mask_BM.dtype} "
                f"{tuple(mask_BM.shape)}. True is what is real."
            )
        brackets = self.brackets(num_queries=num_queries, num_inputs=inputs_BMC.shape[1])
        keys_BMX = values_BMX = inputs_BMC
        if brackets.logits != "queries":
            keys_BMX = self.key(inputs_BMC)
        if brackets.logits == "keys":  # one more channel for what the query's bias gives
            keys_BMX = keys_BMX @ torch.cat([self.query.weight, self.query.bias[:, None]], dim=1)
        if brackets.values != "outputs":
            values_BMX = self.value(inputs_BMC)
        if brackets.values == "values":
            values_BMX = values_BMX @ self.output.weight.T
        return PreparedInputs(
            keys=self.split_heads(keys_BMX),
            values=self.split_heads(values_BMX),
            mask=mask_BM,
            brackets=brackets,
        )

    def brackets(self, *, num_queries: int, num_inputs: int) -> Brackets:
        """Returns where the projections are put: elsewhere than written only with one head and plain layers.

        Args:
            num_queries: N of a sample.
            num_inputs: M of a sample.
        """
        if self.num_heads > 1:
            return Brackets()
        moved = {"keys": self.query, "queries": self.key, "values": self.output, "outputs": self.value}
        allowed = {name for name, layer in moved.items() if is_plain(layer)}
        if self.training and self.dropout:  # weights that are dropped do not sum to 1: the bias would differ
            allowed.discard("outputs")
        return choose_brackets(num_queries=num_queries, num_inputs=num_inputs, allowed=allowed, **self.widths)

    def widths_within(self, brackets: Brackets) -> tuple[int, int]:
        """Returns how wide the keys and the values of a head are within the attention."""
        widths = self.widths
        keys = {
            "projected": widths["qk_channels"] // self.num_heads,
            "keys": widths["query_channels"] + 1,
            "queries": widths["input_channels"],
        }
        values = {
            "projected": widths["v_channels"] // self.num_heads,
            "values": widths["output_channels"],
            "outputs": widths["input_channels"],
        }
        return keys[brackets.logits], values[brackets.values]

    def _attend(self, queries_BND: Tensor, prepared: PreparedInputs, query_mask_BN: Tensor | None) -> Tensor:
        brackets = prepared.brackets
        if brackets.logits == "keys":
            queries_BNX = torch.cat([queries_BND, torch.ones_like(queries_BND[..., :1])], dim=-1)
        elif brackets.logits == "given":
            queries_BNX = queries_BND
        else:
            queries_BNX = self.query(queries_BND)
        if brackets.logits == "queries":
            # The key's bias adds the same to all logits of a query, which changes nothing. Its gradient is zero, not
            # missing: distributed training wants one of every parameter.
            queries_BNX = queries_BNX @ self.key.weight + 0 * self.key.bias.sum()
        attended_BHNX = fused_attention(
            self.split_heads(queries_BNX),
            prepared.keys,
            prepared.values,
            prepared.mask,
            scale=1 / math.sqrt(self.widths["qk_channels"] / self.num_heads),
            dropout=self.dropout if self.training else 0.0,
        )
        attended_BNX = attended_BHNX.transpose(1, 2).flatten(2)
        if brackets.values == "outputs":
            attended_BNX = self.value(attended_BNX)
        if query_mask_BN is not None:
            attended_BNX = torch.where(query_mask_BN[..., None], attended_BNX, 0)
        return attended_BNX + self.output.bias if brackets.values == "values" else self.output(attended_BNX)

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


class _SquaredReLU(nn.Module):
    """max(x, 0)^2 (So et al., 2021)."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x).square()


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, the hidden one `widening_factor` times as wide.

    Args:
        num_channels: D.
        widening_factor: How many times as wide the hidden layer is, to the nearest channel.
        activation: What stands between them.
        bias: Whether the layers have one.
        output_gain: Factor on the initial weights of the second.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        widening_factor: float,
        activation: Activation,
        bias: bool = True,
        output_gain: float = 1.0,
    ) -> None:
        super().__init__()
        hidden_channels = round(widening_factor * num_channels)
        self.hidden = linear(num_channels, hidden_channels, bias=bias)
        self.activation: nn.Module
        if activation == "squared_relu":
            self.activation = _SquaredReLU()
        elif activation == "relu":
            self.activation = nn.ReLU()
        else:
            self.activation = nn.GELU(approximate="tanh" if activation == "gelu_tanh" else "none")
        self.output = linear(hidden_channels, num_channels, bias=bias, gain=output_gain)

    def forward(self, x_BND: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.output(self.activate(x_BND))

    def activate(self, x_BND: Tensor) -> Tensor:
        """Returns the hidden layer after its activation, (B, N, widening_factor * D)."""
        return self.activation(self.hidden(x_BND))


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

    def attention_weights(self, latents_BND: Tensor) -> Tensor:
        """Returns the weights that `forward` attends with, without dropout, (B, H, N, N)."""
        normed_BND = self.norm(latents_BND)
        return attention_map(self.attention.logits(normed_BND, self.attention.key(normed_BND)))


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
