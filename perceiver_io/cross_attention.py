"""The cross-attend: queries that attend to inputs, and a feed-forward; for queries at hand, or made chunk by chunk.

Shape legend: B batch, N queries, M inputs, D query channels, C input channels, P channels that all queries share,
Q = D - P, O output channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from perceiver_io.attention import Activation, FeedForward, MultiHeadAttention, PreparedInputs
from perceiver_io.brackets import NO_LAYERS, Layers, apply_layers, fold_layers, folding_pays
from perceiver_io.fused_attention import attention_map
from perceiver_io.plain import has_hooks, is_plain
from perceiver_io.shared_channels import fold_into_keys, own_channels

__all__ = ["CrossAttention", "QueryChunks"]


@dataclass(frozen=True, kw_only=True)
class QueryChunks:
    """Queries that are made, attend, and are gone, chunk by chunk, so that memory is bounded by a chunk.

    Attributes:
        num_queries: N of a sample, in all.
        chunk_size: How many are made at once; all if None.
        make: Returns the queries from a first to before a last index, (B, n, Q), and a mask of them, (B, n), or None.
        on_done: Called after each chunk with the number of queries in it.
        channels_first: Whether what is joined without gradients lies in memory as (B, O, N), for who wants it so in the
            end; its shape is the same.
    """

    num_queries: int
    chunk_size: int | None
    make: Callable[[int, int], tuple[Tensor, Tensor | None]]
    on_done: Callable[[int], None] | None = None
    channels_first: bool = False

    def run(self, attend: Callable[[Tensor, Tensor | None], Tensor]) -> Tensor:
        """Makes one chunk after the other and joins what becomes of them, (B, N, O).

        Args:
            attend: What becomes of the queries and the mask of a chunk, (B, n, O).
        """
        if (
            self.chunk_size is None
        ):  # told apart without a comparison, which a graph of any size could not take
            all_BNO = attend(*self.make(0, self.num_queries))
            self._done(self.num_queries)
            return all_BNO
        parts: list[Tensor] = []
        joined_BNO: Tensor | None = None
        for start in range(0, self.num_queries, self.chunk_size):
            stop = min(start + self.chunk_size, self.num_queries)
            part_BNO = attend(*self.make(start, stop))
            if torch.is_grad_enabled():
                parts.append(part_BNO)
            else:  # small tensors that stay between large ones that go would leave holes in memory
                if joined_BNO is None:
                    joined_BNO = self._empty(part_BNO)
                joined_BNO[:, start:stop] = part_BNO
            self._done(stop - start)
        if joined_BNO is None:
            joined_BNO = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        return joined_BNO

    def _empty(self, part_BNO: Tensor) -> Tensor:
        batch_size, _, num_channels = part_BNO.shape
        if self.channels_first:
            return part_BNO.new_empty(batch_size, num_channels, self.num_queries).mT
        return part_BNO.new_empty(batch_size, self.num_queries, num_channels)

    def _done(self, num_queries: int) -> None:
        if self.on_done is not None:
            self.on_done(num_queries)


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
        self.query_channels = query_channels
        self.hidden_channels = widening_factor * query_channels
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

    def forward(  # gradient checkpointing wants tensors that need gradients as positional arguments
        self,
        queries: Tensor | QueryChunks,
        inputs_BMC: Tensor,
        mask_BM: Tensor | None = None,
        shared_P: Tensor | None = None,
        *,
        query_mask_BN: Tensor | None = None,
        then: Layers = NO_LAYERS,
    ) -> Tensor:
        """Attends.

        Args:
            queries: What asks, (B, N, D), or without the channels that all share, (B, N, Q); or chunks of such.
            inputs_BMC: What is attended to.
            mask_BM: True where an input is real.
            shared_P: The last channels of all queries, if these are the same; they are written out only where that
                takes less work.
            query_mask_BN: False where a query attends to nothing; goes with queries that are no chunks.
            then: Linear layers that follow, to be multiplied with the feed-forward's last where that takes less work.
                The last of them gives float32 even under autocast.

        Returns:
            What the queries became, (B, N, D), or what the last of the layers that follow made of them.
        """
        num_queries = queries.shape[1] if isinstance(queries, Tensor) else queries.num_queries
        prepared = self.attention.prepare(self.input_norm(inputs_BMC), mask_BM, num_queries=num_queries)
        if shared_P is not None and self._folds(len(shared_P), prepared, num_queries):
            prepared = replace(
                prepared,
                keys=fold_into_keys(prepared.keys, self.query_norm, shared_P),
                brackets=prepared.brackets._replace(logits="given"),
            )

        def attend(queries_BNQ: Tensor, query_mask_BN: Tensor | None) -> Tensor:
            queries_BNQ = queries_BNQ.to(inputs_BMC.dtype)
            if shared_P is not None and prepared.brackets.logits == "given":
                queries_BNQ = own_channels(queries_BNQ, self.query_norm, shared_P.to(queries_BNQ.dtype))
            elif shared_P is not None:
                shared_BNP = shared_P.to(queries_BNQ.dtype).expand(*queries_BNQ.shape[:2], -1)
                queries_BNQ = torch.cat([queries_BNQ, shared_BNP], dim=-1)
            return self._attend(queries_BNQ, prepared, query_mask_BN, then.layers)

        return attend(queries, query_mask_BN) if isinstance(queries, Tensor) else queries.run(attend)

    def attention_weights(
        self, queries_BND: Tensor, inputs_BMC: Tensor, mask_BM: Tensor | None = None
    ) -> Tensor:
        """Returns the weights that `forward` attends with, without dropout, (B, H, N, M); arguments as there."""
        keys_BMX = self.attention.key(self.input_norm(inputs_BMC))
        return attention_map(self.attention.logits(self.query_norm(queries_BND), keys_BMX), mask_BM)

    def floats_per_query(self, *, num_queries: int, num_inputs: int) -> int:
        """Returns how many numbers a query of one sample takes at most, so that chunks can be bounded.

        Args:
            num_queries: N of a sample, in all.
            num_inputs: M.
        """
        attention = self.attention
        key_channels, value_channels = attention.widths_within(
            attention.brackets(num_queries=num_queries, num_inputs=num_inputs)
        )
        attending = 4 * max(key_channels, value_channels)
        if key_channels != value_channels or key_channels % 8:  # see `fused_attention`: not fused while few
            attending += 2 * num_inputs
        width = self.query_channels
        return max(2 * width + attention.num_heads * attending, 4 * width + 2 * self.hidden_channels)

    def _folds(self, num_shared: int, prepared: PreparedInputs, num_queries: int) -> bool:
        """Whether the shared channels are folded into the keys, which takes each key's channels about three times.

        It saves all but three of the shared channels for each query.
        """
        return (
            prepared.brackets.logits == "keys"
            and not self.use_query_residual
            and is_plain(self.query_norm)
            and not has_hooks(self.attention)
            and num_queries * (num_shared - 3) > 3 * self.query_channels
        )

    def _attend(
        self,
        queries_BND: Tensor,
        prepared: PreparedInputs,
        query_mask_BN: Tensor | None,
        then: Sequence[nn.Module],
    ) -> Tensor:
        normed_BND = queries_BND if prepared.brackets.logits == "given" else self.query_norm(queries_BND)
        attended_BND = self.dropout(self.attention(normed_BND, prepared, query_mask_BN=query_mask_BN))
        x_BND = queries_BND + attended_BND if self.use_query_residual else attended_BND
        normed_BND, feed_forward = self.feed_forward_norm(x_BND), self.feed_forward
        if (
            _does_nothing(self.dropout)
            and type(feed_forward) is FeedForward
            and not has_hooks(feed_forward)
            and folding_pays(queries_BND.shape[1], feed_forward.output, then)
        ):
            hidden_BNW = feed_forward.activate(normed_BND)
            return fold_layers(x_BND, hidden_BNW, feed_forward.output, then)  # type: ignore[arg-type]
        return apply_layers(x_BND + self.dropout(feed_forward(normed_BND)), then)


def _does_nothing(dropout: nn.Module) -> bool:
    """Whether calling it gives what goes in. It may be in training where all else is not, for Monte Carlo dropout."""
    return type(dropout) is nn.Dropout and not (dropout.training and dropout.p > 0) and not has_hooks(dropout)
