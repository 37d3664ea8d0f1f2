"""Softmax attention of projected queries, keys and values: fused, and as an explicit map.

Shape legend: B batch, H heads, N queries, M inputs, E query/key channels a head, F value channels a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

__all__ = ["attention_map", "fused_attention"]

# From so many attention weights on (64 MiB in float32) they are never held all at once.
_MANY_WEIGHTS = 2**24


def fused_attention(
    queries_BHNE: Tensor,
    keys_BHME: Tensor,
    values_BHMF: Tensor,
    mask_BM: Tensor | None = None,
    *,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Softmax attention that never holds N x M weights where they are many.

    The fused kernels take keys and values of one width, on accelerators of multiples of 8 channels; otherwise PyTorch
    falls back on a product that holds all weights. So zeros fill the narrower, which changes nothing.

    Args:
        queries_BHNE: Projected queries.
        keys_BHME: Projected keys.
        values_BHMF: Projected values.
        mask_BM: True where an input is real.
        scale: Factor on the dot products.
        dropout: Probability that a weight is dropped.

    Returns:
        (B, H, N, F).
    """
    batch_size, num_heads, num_queries, _ = queries_BHNE.shape
    width, num_values = keys_BHME.shape[-1], values_BHMF.shape[-1]
    # A compiled graph is to serve any sizes, so the many decide there.
    if (
        torch.compiler.is_compiling()
        or batch_size * num_heads * num_queries * keys_BHME.shape[2] > _MANY_WEIGHTS
    ):
        aligned = 1 if queries_BHNE.device.type == "cpu" else 8
        padded = -(-max(width, num_values) // aligned) * aligned
        queries_BHNE, keys_BHME, values_BHMF = (
            pad(x, (0, padded - x.shape[-1])) if x.shape[-1] < padded else x
            for x in (queries_BHNE, keys_BHME, values_BHMF)
        )
    attended_BHNF = scaled_dot_product_attention(
        queries_BHNE,
        keys_BHME,
        values_BHMF,
        attn_mask=None if mask_BM is None else mask_BM[:, None, None, :],
        dropout_p=dropout,
        scale=scale,
    )
    return attended_BHNF[..., :num_values]


def attention_map(logits_BHNM: Tensor, mask_BM: Tensor | None = None) -> Tensor:
    """Softmax of the logits over the real inputs: (B, H, N, M), zero where an input is masked."""
    if mask_BM is not None:
        logits_BHNM = logits_BHNM.masked_fill(~mask_BM[:, None, None, :], -math.inf)
    return logits_BHNM.softmax(dim=-1)
