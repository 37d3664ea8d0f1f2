"""What the encoder's cross-attends look at, and why: by content or by position.

Shape legend: B batch, H heads, N latents, M elements, C channels of the byte array, D latent channels.

The logits of a cross-attend are dot products of queries with keys, and a key is a linear function of the
layer-normed element. Once an element's mean and variance are taken as they are, layer norm is affine in its
channels. So each key is a sum of three: what the content channels give, what the position channels give, and
what the biases give whatever the element; and so is each logit. Where the layer norm is none of torch's, or has hooks,
its biases count with the channels that they are added to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver_io.byte_array import ByteArray, Segment
from perceiver_io.cross_attention import CrossAttention
from perceiver_io.encoder import Encoder
from perceiver_io.fused_attention import attention_map
from perceiver_io.input_tools import listed
from perceiver_io.plain import is_plain

__all__ = ["AttentionMap", "attention_maps", "by_input", "latent_indices", "logit_parts"]


@dataclass(frozen=True, kw_only=True)
class AttentionMap:
    """Attention of one cross-attend. ``*grid`` is an input's grid, or its number of elements if it has none.

    The three parts sum to the logits whose softmax over all real elements of all inputs are the weights.
    Attention does not depend on what all elements share, so the bias part, and the mean of each of the other
    two over the elements, change no weight.

    Attributes:
        weights: By input, (B, H, N, *grid); zero where an element is masked; they sum to 1 over all inputs.
        content: By input, (B, H, N, *grid): the part of the logits that the content channels give.
        position: By input, (B, H, N, *grid): the part that the position channels give, and an input's padding.
        bias: (B, H, N): the part that the key projection's and layer norm's biases give.
    """

    weights: Mapping[str, Tensor]
    content: Mapping[str, Tensor]
    position: Mapping[str, Tensor]
    bias: Tensor


def attention_maps(
    encoder: Encoder,
    byte_array: ByteArray,
    segments: Mapping[str, Segment],
    *,
    latents: Iterable[int] | None = None,
) -> list[AttentionMap]:
    """Runs an encoder and returns the map of each of its cross-attends, in order.

    Args:
        encoder: The encoder.
        byte_array: What it encodes.
        segments: Where each input lies in the byte array.
        latents: Indices of the latents that are wanted; all if None.

    Raises:
        ValueError: A latent's index is out of range.
    """
    num_latents = encoder.latents.weight.shape[0]
    byte_array = byte_array.in_type_of(encoder.weight)
    indices = latent_indices(latents, num_latents)
    maps: list[AttentionMap] = []

    def record(cross_attend: CrossAttention, latents_BND: Tensor) -> None:
        maps.append(_map(cross_attend, latents_BND[:, indices], byte_array, segments))

    encoder(byte_array, on_cross_attend=record)
    return maps


def latent_indices(latents: Iterable[int] | None, num_latents: int) -> list[int]:
    """Returns the indices of the latents that are wanted; of all if None.

    Raises:
        ValueError: An index is out of range, or is not a whole number.
    """
    if latents is None:
        return list(range(num_latents))
    wanted = latents.tolist() if isinstance(latents, Tensor) else latents
    if not isinstance(wanted, Iterable):
        raise ValueError(f"latents must be indices of latents, such as [0, 1], got {latents!r:.80}.")
    indices = list(wanted)
    is_index = [hasattr(index, "__index__") and not isinstance(index, bool) for index in indices]
    if wrong := [i for i, one in zip(indices, is_index, strict=True) if not (one and 0 <= i < num_latents)]:
        raise ValueError(f"There are the latents 0 to {num_latents - 1}, got {listed(wrong):.200}.")
    return indices


def logit_parts(
    cross_attend: CrossAttention, latents_BND: Tensor, values_BMC: Tensor, is_content_MC: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Splits the logits of a cross-attend exactly.

    Args:
        cross_attend: The cross-attend.
        latents_BND: The latents that go into it.
        values_BMC: The elements that it attends to.
        is_content_MC: (M, C) bool, True where a channel of an element is content.

    Returns:
        The content part and the position part, (B, H, N, M) each, and the bias part, (B, H, N, 1); they sum to
        the logits.
    """
    norm, attention = cross_attend.input_norm, cross_attend.attention
    queries_BND = cross_attend.query_norm(latents_BND)
    if is_plain(norm):
        variance_BM1, mean_BM1 = torch.var_mean(values_BMC, dim=-1, keepdim=True, correction=0)
        scaled_BMC = (values_BMC - mean_BM1) * torch.rsqrt(variance_BM1 + norm.eps) * norm.weight
        offset_1C = norm.bias[None]
    else:
        scaled_BMC = norm(values_BMC)
        offset_1C = torch.zeros_like(scaled_BMC[0, :1])
    if is_plain(attention.key):
        weight_CX = attention.key.weight.T
        content_BHNM, position_BHNM = (
            attention.logits(queries_BND, torch.where(part_MC, scaled_BMC, 0) @ weight_CX)
            for part_MC in (is_content_MC, ~is_content_MC)
        )
        bias_1X = offset_1C @ weight_CX + attention.key.bias
        return content_BHNM, position_BHNM, attention.logits(queries_BND, bias_1X)
    # Any other layer is called, and called a difference what a part of its input makes. What it is not linear in,
    # by rounding of quantised weights for instance, counts as position: the sum is what the encoder computes.
    bias_1X = attention.key(offset_1C)
    content_BMX = attention.key(torch.where(is_content_MC, scaled_BMC, 0)) - attention.key(
        torch.zeros_like(offset_1C)
    )
    position_BMX = attention.key(scaled_BMC + offset_1C) - content_BMX - bias_1X
    return (
        attention.logits(queries_BND, content_BMX),
        attention.logits(queries_BND, position_BMX),
        attention.logits(queries_BND, bias_1X),
    )


def _map(
    cross_attend: CrossAttention, latents_BND: Tensor, byte_array: ByteArray, segments: Mapping[str, Segment]
) -> AttentionMap:
    content_BHNM, position_BHNM, bias_BHN1 = logit_parts(
        cross_attend, latents_BND, byte_array.values, _is_content(byte_array, segments)
    )
    weights_BHNM = attention_map(content_BHNM + position_BHNM + bias_BHN1, byte_array.mask)

    return AttentionMap(
        weights=by_input(weights_BHNM, segments),
        content=by_input(content_BHNM, segments),
        position=by_input(position_BHNM, segments),
        bias=bias_BHN1.squeeze(-1),
    )


def by_input(x_BHNM: Tensor, segments: Mapping[str, Segment]) -> dict[str, Tensor]:
    """Returns the part of each input, (B, H, N, *grid), of what there is of all elements."""
    return {
        name: x_BHNM[..., part.start : part.start + part.length].unflatten(-1, part.grid or (part.length,))
        for name, part in segments.items()
    }


def _is_content(byte_array: ByteArray, segments: Mapping[str, Segment]) -> Tensor:
    _, num_elements, num_channels = byte_array.values.shape
    is_content_MC = torch.zeros(num_elements, num_channels, dtype=torch.bool, device=byte_array.values.device)
    for part in segments.values():
        is_content_MC[part.start : part.start + part.length, : part.num_content_channels] = True
    return is_content_MC
