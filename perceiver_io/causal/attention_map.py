"""What the cross-attend of a causal encoder looks at.

Shape legend: B batch, H heads, N latents, M elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from perceiver_io.attention_maps import AttentionMap, by_input, latent_indices
from perceiver_io.byte_array import ByteArray, Segment
from perceiver_io.causal.encoder import CausalEncoder

__all__ = ["causal_attention_map"]


def causal_attention_map(
    encoder: CausalEncoder,
    byte_array: ByteArray,
    segments: Mapping[str, Segment],
    *,
    latents: Iterable[int] | None = None,
) -> AttentionMap:
    """Returns the map of the one cross-attend.

    Rotary positions turn queries and keys, and absolute ones are added to the elements: so the logits have no part that
    is position alone, and all of them are counted as content.

    Args:
        encoder: The encoder.
        byte_array: What it encodes.
        segments: Where each input lies in the byte array.
        latents: Indices of the latents that are wanted, of those that stand on the last elements; all if None.

    Raises:
        ValueError: A latent's index is out of range.
    """
    weights_BHNM, logits_BHNM = encoder.cross_attention(byte_array)
    num_latents = weights_BHNM.shape[2]
    indices = latent_indices(latents, num_latents)
    weights_BHNM, logits_BHNM = weights_BHNM[:, :, indices], logits_BHNM[:, :, indices]
    return AttentionMap(
        weights=by_input(weights_BHNM, segments),
        content=by_input(logits_BHNM, segments),
        position=by_input(torch.zeros_like(logits_BHNM), segments),
        bias=torch.zeros_like(logits_BHNM[..., 0]),
    )
