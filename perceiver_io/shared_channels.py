"""Queries whose last channels are the same for all: they are never written out.

Shape legend: B batch, O queries, Q channels of a query's own, P channels that all queries share, D = Q + P,
M inputs.

Where outputs share an attention, each query is widened by a padding, which may be most of it: 831 of 1,026 channels of
a pixel's query in the published multimodal model. With r = 1 / standard deviation and m = mean of a query x = (q, p),
its logits with folded keys k (see `brackets.py`) are

    (g (x - m) r + b) k' + c = r (q (g k)_Q' + p (g k)_P' - m sum(g k)) + b k' + c

so that Q + 3 channels do what D + 1 did: (r q, r, -r m, 1) against ((g k)_Q, p (g k)_P', sum(g k), b k' + c).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["fold_into_keys", "own_channels"]


def fold_into_keys(keys_BMX: Tensor, norm: nn.LayerNorm, shared_P: Tensor) -> Tensor:
    """Folds the norm of the queries, and the channels that they share, into keys.

    Args:
        keys_BMX: (..., M, D + 1) keys into which the query projection is folded; the last channel is its bias.
        norm: Layer norm of the queries.
        shared_P: The last channels of all queries.

    Returns:
        (..., M, Q + 3) keys for `own_channels`.
    """
    keys_BMD, bias_BM1 = keys_BMX[..., :-1], keys_BMX[..., -1:]
    scaled_BMD = keys_BMD * norm.weight
    own_BMQ, rest_BMP = scaled_BMD.split([scaled_BMD.shape[-1] - len(shared_P), len(shared_P)], dim=-1)
    return torch.cat(
        [
            own_BMQ,
            (rest_BMP @ shared_P)[..., None],
            scaled_BMD.sum(dim=-1, keepdim=True),
            (keys_BMD @ norm.bias)[..., None] + bias_BM1,
        ],
        dim=-1,
    )


def own_channels(queries_BOQ: Tensor, norm: nn.LayerNorm, shared_P: Tensor) -> Tensor:
    """Returns (B, O, Q + 3): what is a query's own, for keys that `fold_into_keys` made.

    Args:
        queries_BOQ: The channels that differ.
        norm: Layer norm of the queries.
        shared_P: The last channels of all queries.
    """
    dtype = torch.promote_types(queries_BOQ.dtype, torch.float32)
    own_BOQ, shared_P = queries_BOQ.to(dtype), shared_P.to(dtype)
    num_own, num_shared = own_BOQ.shape[-1], len(shared_P)
    own_variance_BO1, own_mean_BO1 = torch.var_mean(own_BOQ, dim=-1, keepdim=True, correction=0)
    shared_variance, shared_mean = torch.var_mean(shared_P, dim=-1, keepdim=True, correction=0)
    share = num_shared / (num_own + num_shared)
    difference_BO1 = own_mean_BO1 - shared_mean
    mean_BO1 = own_mean_BO1 - share * difference_BO1
    variance_BO1 = (
        (1 - share) * own_variance_BO1 + share * shared_variance + share * (1 - share) * difference_BO1**2
    )
    rate_BO1 = torch.rsqrt(variance_BO1 + norm.eps)
    parts = [own_BOQ * rate_BO1, rate_BO1, -mean_BO1 * rate_BO1, torch.ones_like(rate_BO1)]
    return torch.cat(parts, dim=-1).to(queries_BOQ.dtype)
