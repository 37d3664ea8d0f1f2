"""What the cross-attend of a causal encoder looks at.

Shape legend: B batch, H heads, N latents, M elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from perceiver_io.attention_maps import AttentionMap
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
    indices = list(range(num_latents)) if latents is None else list(latents)
    if out_of_range := [index for index in indices if not 0 <= index < num_latents]:
        raise ValueError(f"There are the latents 0 to {num_latents - 1}, got {out_of_range}.")

    def by_input(x_BHNM: Tensor) -> dict[str, Tensor]:
        x_BHNM = x_BHNM[:, :, indices]
        return {
            name: x_BHNM[..., part.start : part.start + part.length].unflatten(
                -1, part.grid or (part.length,)
            )
            for name, part in segments.items()
        }

    return AttentionMap(
        weights=by_input(weights_BHNM),
        content=by_input(logits_BHNM),
        position=by_input(torch.zeros_like(logits_BHNM)),
        bias=torch.zeros_like(logits_BHNM[:, :, indices, 0]),
    )
