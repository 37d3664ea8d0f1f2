"""The encoder: latents that attend to a byte array once or several times.

Shape legend: B batch, M elements, C channels of the byte array, N latents, D latent channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor, nn

from perceiver_io.attention import Activation, SelfAttention, SelfAttentionBlock
from perceiver_io.byte_array import ByteArray
from perceiver_io.component import ComponentConfig
from perceiver_io.cross_attention import CrossAttention
from perceiver_io.layers import LearnedArray

__all__ = ["Encoder", "EncoderConfig", "Sharing"]

Sharing = Literal["none", "all", "after_first"]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(ComponentConfig):
    """Settings of the encoder.

    Attributes:
        num_latents: N.
        latent_channels: D.
        num_cross_attends: How often the latents attend to the byte array; spread evenly over the blocks, the
            first before the first block.
        num_blocks: Blocks of self-attentions.
        num_self_attends_per_block: Self-attentions in each block.
        share_cross_attends: Which cross-attends share their weights: "none", "all", or all "after_first", as the
            ImageNet Perceiver does.
        share_blocks: The same for the blocks.
        num_cross_attention_heads: Heads of the cross-attends.
        num_self_attention_heads: Heads of the self-attentions.
        cross_attention_qk_channels: Width of the cross-attends' queries and keys; the byte array's if None.
        cross_attention_v_channels: Width of their values; as their queries and keys if None.
        self_attention_qk_channels: Width of the self-attentions' queries and keys; D if None.
        self_attention_v_channels: Width of their values; as their queries and keys if None.
        cross_attention_widening_factor: Of the cross-attends' feed-forward.
        self_attention_widening_factor: Of the self-attentions' feed-forward.
        use_query_residual: Whether the cross-attends add the latents to what these attended to.
        activation: "gelu" is exact, "gelu_tanh" the approximation that the original release uses.
        dropout: Probability that a channel of a residual branch is dropped in training.
        attention_dropout: Probability that an attention weight is dropped in training.
        latent_std: Standard deviation of the initial latents.
        cross_attention_init: How the keys and values of the cross-attends start. "fan_in" is as published: every
            channel of the byte array has the same share of their variance, so that three content channels beside
            258 of position have one percent, and training sits on a plateau until it has grown. "balanced" gives
            the content one half and the position the other; see docs/convergence.md.
        cross_attention_query_gain: Factor on the initial query projection of the cross-attends.
    """

    num_latents: int
    latent_channels: int
    num_cross_attends: int = 1
    num_blocks: int = 1
    num_self_attends_per_block: int = 6
    share_cross_attends: Sharing = "none"
    share_blocks: Sharing = "all"
    num_cross_attention_heads: int = 1
    num_self_attention_heads: int = 8
    cross_attention_qk_channels: int | None = None
    cross_attention_v_channels: int | None = None
    self_attention_qk_channels: int | None = None
    self_attention_v_channels: int | None = None
    cross_attention_widening_factor: int = 1
    self_attention_widening_factor: int = 1
    use_query_residual: bool = True
    activation: Activation = "gelu"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    latent_std: float = 0.02
    cross_attention_init: Literal["balanced", "fan_in"] = "balanced"
    cross_attention_query_gain: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "num_latents",
            "latent_channels",
            "num_cross_attends",
            "num_blocks",
            "num_self_attends_per_block",
            "num_cross_attention_heads",
            "num_self_attention_heads",
            "cross_attention_widening_factor",
            "self_attention_widening_factor",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"EncoderConfig.{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"EncoderConfig.{name} must be in [0, 1), got {getattr(self, name)}.")
        if self.latent_std <= 0:
            raise ValueError(f"EncoderConfig.latent_std must be above zero, got {self.latent_std}.")
        if self.num_cross_attends > self.num_blocks:
            raise ValueError(
                f"num_cross_attends must not exceed num_blocks (each is followed by a block), got "
                f"{self.num_cross_attends} cross-attends and {self.num_blocks} blocks."
            )


class Encoder(nn.Module):
    """Latents that read a byte array by iterative cross-attention (Perceiver, section 3.1; Perceiver IO, section 3.1).

    Args:
        config: The settings.
        input_channels: C.
        content_channels: How many of the first channels are content, for each input that is packed in the byte array.
    """

    Config = EncoderConfig

    def __init__(
        self, config: EncoderConfig, *, input_channels: int, content_channels: Sequence[int]
    ) -> None:
        super().__init__()
        input_shares = None
        if config.cross_attention_init == "balanced":
            input_shares = _balanced_shares(input_channels, content_channels)
        self.latents = LearnedArray(config.num_latents, config.latent_channels, std=config.latent_std)
        self.cross_attends = nn.ModuleList(
            CrossAttention(
                query_channels=config.latent_channels,
                input_channels=input_channels,
                num_heads=config.num_cross_attention_heads,
                qk_channels=config.cross_attention_qk_channels,
                v_channels=config.cross_attention_v_channels,
                widening_factor=config.cross_attention_widening_factor,
                activation=config.activation,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                query_gain=config.cross_attention_query_gain,
                input_shares=input_shares,
                use_query_residual=config.use_query_residual,
            )
            for _ in set(_shared_indices(config.num_cross_attends, config.share_cross_attends))
        )
        self.blocks = nn.ModuleList(
            SelfAttentionBlock(
                [
                    SelfAttention(
                        num_channels=config.latent_channels,
                        num_heads=config.num_self_attention_heads,
                        qk_channels=config.self_attention_qk_channels,
                        v_channels=config.self_attention_v_channels,
                        widening_factor=config.self_attention_widening_factor,
                        activation=config.activation,
                        dropout=config.dropout,
                        attention_dropout=config.attention_dropout,
                    )
                    for _ in range(config.num_self_attends_per_block)
                ]
            )
            for _ in set(_shared_indices(config.num_blocks, config.share_blocks))
        )
        # For each block in order: the cross-attend before it, if any, and its weights.
        cross_attends = _shared_indices(config.num_cross_attends, config.share_cross_attends)
        before_block = {
            attend * config.num_blocks // config.num_cross_attends: index
            for attend, index in enumerate(cross_attends)
        }
        self._schedule = [
            (before_block.get(block), index)
            for block, index in enumerate(_shared_indices(config.num_blocks, config.share_blocks))
        ]

    @property
    def weight(self) -> Tensor:
        """A parameter of the type that the encoder computes in, on its device."""
        return self.latents.weight

    def forward(
        self,
        byte_array: ByteArray,
        *,
        on_cross_attend: Callable[[CrossAttention, Tensor], None] | None = None,
    ) -> Tensor:
        """Encodes a byte array.

        Args:
            byte_array: M elements of C channels; masked elements change nothing.
            on_cross_attend: Called before each cross-attend with it and the latents (B, N, D) that go into it.

        Returns:
            (B, N, D) latents.
        """
        byte_array = byte_array.in_type_of(self.latents.weight)
        latents_BND = self.latents().to(byte_array.values.dtype).expand(byte_array.values.shape[0], -1, -1)
        for cross_attend_index, block_index in self._schedule:
            if cross_attend_index is not None:
                cross_attend = cast(CrossAttention, self.cross_attends[cross_attend_index])
                if on_cross_attend is not None:
                    on_cross_attend(cross_attend, latents_BND)
                latents_BND = cross_attend(latents_BND, byte_array.values, byte_array.mask)
            latents_BND = self.blocks[block_index](latents_BND)
        return latents_BND


def _shared_indices(count: int, sharing: Sharing) -> list[int]:
    """Which set of weights each of `count` modules in a row uses."""
    if sharing == "all":
        return [0] * count
    if sharing == "after_first":
        return [min(index, 1) for index in range(count)]
    return list(range(count))


def _balanced_shares(num_channels: int, content_channels: Sequence[int]) -> list[float]:
    """Shares of the variance that give content and position one half each, averaged over the inputs."""
    shares = [0.0] * num_channels
    for num_content in content_channels:
        num_position = num_channels - num_content
        groups = 2 if num_content and num_position else 1
        for channel in range(num_channels):
            group_size = num_content if channel < num_content else num_position
            shares[channel] += 1 / (groups * group_size * len(content_channels))
    return shares
