"""Causal softmax attention of the last N of M elements to all of them, without N x M weights or masks where M is large.

Shape legend: B batch, H heads, N queries, M keys, P = M - N prefix, E channels a head.

Query i stands at key P + i and sees the keys up to there. So all queries see the whole prefix, and only the last N keys
need a causal mask. Where M is larger than N, both parts are computed by the fused kernel, each with the logarithm of
its sum of exponentials, by which they are put together; their gradients are exact too: a kernel that is given the
output and the logarithm of both parts computes its own part's share (as in ring attention, Liu et al., 2023).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["causal_attention", "causal_mask"]

# Of the fused kernel that also returns the logarithm; what is not there is computed with a mask instead.
_KERNEL = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_GRADIENT = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)


def causal_attention(
    queries_BHNE: Tensor,
    keys_BHME: Tensor,
    values_BHME: Tensor,
    mask_BM: Tensor | None = None,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """Attends, each query to the keys up to its own; scores are divided by the square root of E.

    Args:
        queries_BHNE: Those of the last N elements.
        keys_BHME: Those of all elements.
        values_BHME: Those of all elements, as wide as the keys.
        mask_BM: True where a key may be seen. A query sees its own key in any case.
        dropout: Probability that a weight is dropped.

    Returns:
        (B, H, N, E).
    """
    num_queries, num_keys = queries_BHNE.shape[2], keys_BHME.shape[2]
    inputs = (queries_BHNE, keys_BHME, values_BHME)
    if num_queries == 1:
        return _with_mask(*inputs, None if mask_BM is None else _own_seen(mask_BM), dropout=dropout)
    if num_queries == num_keys and mask_BM is None:
        return scaled_dot_product_attention(*inputs, is_causal=True, dropout_p=dropout)
    on_cpu = _KERNEL is not None and _GRADIENT is not None and queries_BHNE.device.type == "cpu"
    if (
        num_queries < num_keys
        and on_cpu
        and not dropout
        and not torch.compiler.is_compiling()
        and torch.backends.cuda.flash_sdp_enabled()  # it is about a CPU's, too
    ):
        attended_BHNE: Tensor = _InTwoParts.apply(*inputs, mask_BM)
        return attended_BHNE
    if queries_BHNE.device.type == "cuda" and num_queries < num_keys and not torch.compiler.is_compiling():
        return _by_row(*inputs, mask_BM, dropout=dropout)
    return _with_mask(*inputs, causal_mask(num_queries, num_keys, mask_BM, like=keys_BHME), dropout=dropout)


def _own_seen(mask_BM: Tensor) -> Tensor:
    """The mask of one query, (B, 1, 1, M)."""
    own_M = torch.arange(mask_BM.shape[1], device=mask_BM.device) == mask_BM.shape[1] - 1
    return (mask_BM | own_M)[:, None, None]


def causal_mask(num_queries: int, num_keys: int, mask_BM: Tensor | None, *, like: Tensor) -> Tensor:
    """Returns (N, M), or with a mask (B, 1, N, M), bool: True where one of the last N elements sees one of all M.

    Args:
        num_queries: N.
        num_keys: M.
        mask_BM: True where a key is real; each sees its own in any case.
        like: On whose device it is made.
    """
    places_M = torch.arange(num_keys, device=like.device)
    own_N1 = torch.arange(num_keys - num_queries, num_keys, device=like.device)[:, None]
    seen_NM = places_M <= own_N1
    return seen_NM if mask_BM is None else (seen_NM & mask_BM[:, None] | (places_M == own_N1))[:, None]


def _with_mask(
    queries_BHNE: Tensor, keys_BHME: Tensor, values_BHME: Tensor, mask: Tensor | None, *, dropout: float
) -> Tensor:
    return scaled_dot_product_attention(
        queries_BHNE, keys_BHME, values_BHME, attn_mask=mask, dropout_p=dropout
    )


def _by_row(
    queries_BHNE: Tensor, keys_BHME: Tensor, values_BHME: Tensor, mask_BM: Tensor | None, *, dropout: float
) -> Tensor:
    """For accelerators, whose kernels know a causal mask that ends with the last key, but none with padding besides.

    Each sample is attended to without the keys that it does not see, if that leaves its last N keys as they are.
    """
    from torch.nn.attention.bias import causal_lower_right

    num_queries = queries_BHNE.shape[2]
    if mask_BM is None:
        bias: Any = causal_lower_right(num_queries, keys_BHME.shape[2])
        return scaled_dot_product_attention(
            queries_BHNE, keys_BHME, values_BHME, attn_mask=bias, dropout_p=dropout
        )
    rows = []
    for row, mask_M in enumerate(mask_BM):
        part = slice(row, row + 1)
        if mask_M[-num_queries:].all():
            keys, values, mask = keys_BHME[part][:, :, mask_M], values_BHME[part][:, :, mask_M], None
            rows.append(_by_row(queries_BHNE[part], keys, values, None, dropout=dropout))
        else:
            mask = causal_mask(num_queries, keys_BHME.shape[2], mask_BM[part], like=keys_BHME)
            rows.append(
                _with_mask(queries_BHNE[part], keys_BHME[part], values_BHME[part], mask, dropout=dropout)
            )
    return torch.cat(rows)


class _InTwoParts(torch.autograd.Function):
    """The prefix, which all queries see, and the last N keys, put together by the logarithms of their sums."""

    @staticmethod
    def forward(
        ctx: Any, queries_BHNE: Tensor, keys_BHME: Tensor, values_BHME: Tensor, mask_BM: Tensor | None
    ) -> Tensor:
        num_prefix = keys_BHME.shape[2] - queries_BHNE.shape[2]
        prefix_bias, own_bias = _biases(mask_BM, num_prefix, like=queries_BHNE)
        prefix_BHNE, prefix_log_BHN = _KERNEL(  # type: ignore[misc]  # it is there, or this is not called
            queries_BHNE,
            keys_BHME[:, :, :num_prefix],
            values_BHME[:, :, :num_prefix],
            attn_mask=prefix_bias,
        )
        own_BHNE, own_log_BHN = _KERNEL(  # type: ignore[misc]
            queries_BHNE,
            keys_BHME[:, :, num_prefix:],
            values_BHME[:, :, num_prefix:],
            is_causal=own_bias is None,
            attn_mask=own_bias,
        )
        if mask_BM is not None:  # a kernel that sees nothing says 0
            none_B = ~mask_BM[:, :num_prefix].any(dim=1)
            prefix_log_BHN = prefix_log_BHN.masked_fill(none_B[:, None, None], -math.inf)
        log_BHN = torch.logaddexp(prefix_log_BHN, own_log_BHN)
        share_BHN1 = (prefix_log_BHN - log_BHN).exp()[..., None].to(own_BHNE.dtype)
        attended_BHNE = torch.lerp(own_BHNE, prefix_BHNE, share_BHN1)
        ctx.save_for_backward(queries_BHNE, keys_BHME, values_BHME, mask_BM, attended_BHNE, log_BHN)
        return attended_BHNE

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_BHNE: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        queries_BHNE, keys_BHME, values_BHME, mask_BM, attended_BHNE, log_BHN = ctx.saved_tensors
        num_prefix = keys_BHME.shape[2] - queries_BHNE.shape[2]
        of_queries: list[Tensor] = []
        of_keys: list[Tensor] = []
        of_values: list[Tensor] = []
        biases = _biases(mask_BM, num_prefix, like=queries_BHNE)
        for part, bias, causal in (
            (slice(0, num_prefix), biases[0], False),
            (slice(num_prefix, None), biases[1], biases[1] is None),
        ):
            gradients = _GRADIENT(  # type: ignore[misc]
                gradient_BHNE,
                queries_BHNE,
                keys_BHME[:, :, part],
                values_BHME[:, :, part],
                attended_BHNE,
                log_BHN,
                0.0,
                causal,
                attn_mask=bias,
            )
            for gradient, where in zip(gradients, (of_queries, of_keys, of_values), strict=True):
                where.append(gradient)
        return of_queries[0] + of_queries[1], torch.cat(of_keys, dim=2), torch.cat(of_values, dim=2), None


def _biases(mask_BM: Tensor | None, num_prefix: int, *, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """What is added to the logits: of the prefix (B, 1, 1, P), of the last N keys (B, 1, N, N); None for nothing."""
    if mask_BM is None:
        return None, None
    zero = like.new_zeros(())
    prefix_B11P = torch.where(mask_BM[:, None, None, :num_prefix], zero, -math.inf)
    if bool(mask_BM[:, num_prefix:].all()):
        return prefix_B11P, None
    own_mask = mask_BM[:, num_prefix:]
    own_B1NN = torch.where(
        causal_mask(own_mask.shape[1], own_mask.shape[1], own_mask, like=like), zero, -math.inf
    )
    return prefix_B11P, own_B1NN
