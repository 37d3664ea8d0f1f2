"""The causal encoder: the last N elements of a byte array are the latents, and none sees what comes after it.

Shape legend: B batch, M elements, P elements before the latents, N latents, C channels of an element, D latent
channels, K kept elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from perceiver_io.attention import Activation
from perceiver_io.byte_array import ByteArray
from perceiver_io.causal.alignment import aligned_to_end, all_real, joined_masks
from perceiver_io.causal.cache import LatentCache
from perceiver_io.causal.causal_attention import causal_mask
from perceiver_io.causal.layers import (
    AttendSettings,
    Biases,
    CausalCrossAttend,
    CausalSelfAttend,
    LatentKeys,
)
from perceiver_io.causal.rotary import RotaryPositions, Rotation, Wavelengths
from perceiver_io.causal.sequence import token_positions
from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import check_positive, whole_number
from perceiver_io.layers import linear

__all__ = ["CausalEncoder", "CausalEncoderConfig"]


@dataclass(frozen=True, kw_only=True)
class CausalEncoderConfig(ComponentConfig):
    """Settings of a causal encoder (Perceiver AR, Hawthorne et al., 2022).

    Attributes:
        sequence: Name of the input that is continued. What the model has of other inputs stands before it.
        max_length: M, the most elements that are read.
        num_latents: N, the most latents.
        latent_channels: D.
        num_self_attends: Self-attends after the cross-attend.
        num_heads: Of the cross-attend and the self-attends.
        rotary_fraction: Which part of the channels of a head is turned by the position, rounded down to pairs; 0 for
            none.
        rotary_wavelengths: How the frequencies are spaced.
        rotary_max_wavelength: The longest wavelength, in positions, over 2 pi.
        rotary_backwards: Whether angles fall with the position.
        num_rotary_self_attends: How many self-attends have rotary positions, the first ones; all if None. The
            cross-attend always has them.
        project_latents: Whether latents are a linear function of the elements that they stand on, as in the original
            release; else they are these elements, which are as wide then.
        latent_keys: Which norm the cross-attend's keys of the latents' own elements pass.
        biases: Which linear layers have one.
        widening_factor: Of the feed-forwards.
        cross_widening_factor: Of the cross-attend's; as the others if None.
        activation: Of the feed-forwards.
        dropout: Probability that a channel of a residual branch is dropped in training.
        attention_dropout: Probability that an attention weight is dropped in training. Fused kernels have no such thing
            on processors: attention takes N x M memory then.
        prefix_dropout: In training, the part of the elements before the latents that is left out, others for each
            sample.
        prefix_dropout_form: "exact" leaves out just that part, and saves what it would have cost; "bernoulli" hides
            each element before the latents, and each that latents stand on from later ones, with that probability.
    """

    sequence: str
    max_length: int
    num_latents: int
    latent_channels: int
    num_self_attends: int = 6
    num_heads: int = 8
    rotary_fraction: float = 0.0
    rotary_wavelengths: Wavelengths = "geometric"
    rotary_max_wavelength: float = 10_000.0
    rotary_backwards: bool = False
    num_rotary_self_attends: int | None = None
    project_latents: bool = False
    latent_keys: LatentKeys = "input_norm"
    biases: Biases = "all"
    widening_factor: int = 4
    cross_widening_factor: int | None = None
    activation: Activation = "gelu"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    prefix_dropout: float = 0.0
    prefix_dropout_form: Literal["exact", "bernoulli"] = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "max_length", "num_latents", "latent_channels", "num_self_attends", "num_heads")
        check_positive(self, "widening_factor", "cross_widening_factor")
        if self.num_latents > self.max_length:
            raise ValueError(
                f"CausalEncoderConfig.num_latents is {self.num_latents}, more than the {self.max_length} elements of "
                "max_length that they stand on."
            )
        if self.latent_channels % self.num_heads:
            raise ValueError(
                f"CausalEncoderConfig.latent_channels must be a multiple of the {self.num_heads} heads, got "
                f"{self.latent_channels}."
            )
        if not 0 <= self.rotary_fraction <= 1:
            raise ValueError(
                f"CausalEncoderConfig.rotary_fraction must be in [0, 1], got {self.rotary_fraction}."
            )
        if self.rotary_max_wavelength <= 0:
            raise ValueError(
                f"CausalEncoderConfig.rotary_max_wavelength must be above zero, got {self.rotary_max_wavelength}."
            )
        if self.num_rotary_self_attends is not None and self.num_rotary_self_attends < 0:
            raise ValueError(
                "CausalEncoderConfig.num_rotary_self_attends must be 0 or more, or None for all, got "
                f"{self.num_rotary_self_attends}."
            )
        for name in ("dropout", "attention_dropout", "prefix_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"CausalEncoderConfig.{name} must be in [0, 1), got {getattr(self, name)}.")


class CausalEncoder(nn.Module):
    """A cross-attend from the last N elements to all, and self-attends of these latents, all of them causal.

    Latent i is about the i-th of the last N real elements of a sample, wherever padding stands. Where a sample has
    fewer, its first latents are about nothing: they are no keys for others, and what they hold means nothing.

    Args:
        config: The settings.
        input_channels: C.

    Raises:
        ValueError: The widths do not fit together.
    """

    Config = CausalEncoderConfig

    def __init__(self, config: CausalEncoderConfig, *, input_channels: int) -> None:
        super().__init__()
        channels = config.latent_channels
        if not config.project_latents and input_channels != channels:
            raise ValueError(
                f"Elements have {input_channels} channels and latents {channels}: without project_latents they must be "
                "as wide."
            )
        if config.latent_keys == "query_norm" and input_channels != channels:
            raise ValueError(
                f"Elements have {input_channels} channels and latents {channels}: with latent_keys='query_norm' they "
                "must be as wide."
            )
        if input_channels % config.num_heads:
            raise ValueError(
                f"Elements have {input_channels} channels, which {config.num_heads} heads do not divide."
            )
        self.config = config
        # Of the elements, as wide as the cross-attend, and of the latents.
        self.rotary, self.latent_rotary = (
            RotaryPositions(
                2 * int(config.rotary_fraction * width / config.num_heads / 2),
                wavelengths=config.rotary_wavelengths,
                max_wavelength=config.rotary_max_wavelength,
                backwards=config.rotary_backwards,
            )
            for width in (input_channels, channels)
        )
        settings = AttendSettings(
            channels=channels,
            num_heads=config.num_heads,
            biases=config.biases,
            activation=config.activation,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            # So that the sum of all residual branches starts with the variance of one (GPT-2, section 2.3).
            output_gain=(2 * (1 + config.num_self_attends)) ** -0.5,
        )
        self.projection = linear(input_channels, channels) if config.project_latents else None
        self.cross_attend = CausalCrossAttend(
            settings,
            input_channels=input_channels,
            latent_keys=config.latent_keys,
            widening_factor=config.cross_widening_factor or config.widening_factor,
        )
        self.self_attends = nn.ModuleList(
            CausalSelfAttend(settings, widening_factor=config.widening_factor)
            for _ in range(config.num_self_attends)
        )

    @property
    def weight(self) -> Tensor:
        """A parameter of the type that the encoder computes in, on its device."""
        return self.cross_attend.query_norm.weight

    @property
    def num_layers(self) -> int:
        """How many attentions there are to cache."""
        return 1 + len(self.self_attends)

    def forward(
        self,
        byte_array: ByteArray,
        *,
        num_latents: int | None = None,
        num_before: int = 0,
        cache: LatentCache | None = None,
    ) -> Tensor:
        """Encodes a byte array.

        Args:
            byte_array: M elements of C channels; masked elements change nothing.
            num_latents: How many of the last elements are latents; N if None. No more than follow those before.
            num_before: How many of the first elements no latent stands on: conditions of a sequence.
            cache: An empty one that is filled, to go on with `extend`.

        Returns:
            (B, latents, D), in the order of the elements.

        Raises:
            ValueError: There are more elements than `max_length`, or `num_latents` is not in 1 … N.
        """
        config = self.config
        byte_array = byte_array.in_type_of(self.weight)
        num_elements = byte_array.values.shape[1]
        if num_elements > config.max_length:
            raise ValueError(
                f"There are {num_elements} elements, but the model reads {config.max_length} at most. Give it the last "
                "ones."
            )
        if num_latents is None:
            num_latents = config.num_latents
        num_latents = whole_number(num_latents, name="num_latents", least=0)
        if not 1 <= num_latents <= config.num_latents:
            raise ValueError(f"num_latents must be from 1 to {config.num_latents}, got {num_latents}.")
        num_latents = min(num_latents, num_elements - num_before)
        elements_BMC, mask_BM = aligned_to_end(byte_array.values, byte_array.mask)
        latent_mask_BN = None
        if byte_array.mask is not None and mask_BM is not None:
            # Where padding goes before them, conditions come to stand where a longer sample has latents.
            follows_M = torch.arange(num_elements, device=mask_BM.device) >= num_before
            own_BM, _ = aligned_to_end(byte_array.mask & follows_M, byte_array.mask)
            latent_mask_BN = own_BM[:, -num_latents:]
        positions_BM = self._positions(elements_BMC, mask_BM)
        is_exact = config.prefix_dropout_form == "exact"
        if (
            self.training
            and config.prefix_dropout
            and cache is None
            and not (is_exact and num_elements == num_latents)
        ):
            drop = self._without_some if is_exact else self._hiding_some
            elements_BMC, positions_BM, mask_BM = drop(elements_BMC, positions_BM, mask_BM, num_latents)
        return self._attend(
            elements_BMC, positions_BM, mask_BM, latent_mask_BN, num_latents=num_latents, cache=cache
        )

    def extend(
        self,
        elements_BMC: Tensor,
        positions_BM: Tensor,
        mask_BM: Tensor | None,
        *,
        num_latents: int,
        cache: LatentCache,
    ) -> Tensor:
        """Goes on with what a cache holds.

        Args:
            elements_BMC: The elements that follow those whose keys the cache holds.
            positions_BM: Their positions, (B or 1, M).
            mask_BM: (B, M) True where one is real; None where all are.
            num_latents: How many of them are latents, the last ones. They join those that the cache holds.
            cache: What was filled before.

        Returns:
            (B, latents, D), the latents of these elements alone.
        """
        own_mask_BN = None if mask_BM is None else mask_BM[:, -num_latents:]
        latent_parts = [(cache.latent_mask, cache.num_latents), (own_mask_BN, num_latents)]
        latent_mask_BN = joined_masks(latent_parts, like=elements_BMC)
        parts = [(cache.key_mask, cache.num_keys), (mask_BM, elements_BMC.shape[1])]
        mask_BM = joined_masks(parts, like=elements_BMC)
        return self._attend(
            elements_BMC.to(self.weight.dtype),
            positions_BM,
            mask_BM,
            latent_mask_BN,
            num_latents=num_latents,
            cache=cache,
        )

    def _attend(
        self,
        elements_BMC: Tensor,
        positions_BM: Tensor,
        mask_BM: Tensor | None,
        latent_mask_BN: Tensor | None,
        *,
        num_latents: int,
        cache: LatentCache | None,
    ) -> Tensor:
        layers = [None] * self.num_layers if cache is None else cache.layers
        if cache is not None:
            cache.key_mask, cache.latent_mask = mask_BM, latent_mask_BN
            cache.num_latents += num_latents
        rotation = self.rotary(positions_BM, like=elements_BMC)
        latents_BND = self.cross_attend(
            self._latents(elements_BMC, num_latents),
            elements_BMC,
            rotation=rotation,
            mask_BM=mask_BM,
            cache=layers[0],
        )
        if latent_mask_BN is not None and all_real(latent_mask_BN):
            latent_mask_BN = None
        if rotation is not None and self.rotary.num_channels == self.latent_rotary.num_channels:
            own_rotation: Rotation | None = rotation.last(num_latents)
        else:
            own_rotation = self.latent_rotary(positions_BM[:, -num_latents:], like=elements_BMC)
        rotated = self.config.num_rotary_self_attends
        for index, layer in enumerate(self.self_attends):
            latents_BND = layer(
                latents_BND,
                rotation=own_rotation if rotated is None or index < rotated else None,
                mask_BN=latent_mask_BN,
                cache=layers[1 + index],
            )
        return latents_BND

    def cross_attention(
        self, byte_array: ByteArray, *, num_latents: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns what the latents attend to, computed explicitly.

        Args:
            byte_array: As `forward`.
            num_latents: As `forward`.

        Returns:
            The weights and the logits, (B, H, latents, M) each, over the elements as they came. Weights are 0 where a
            latent does not see an element.
        """
        byte_array = byte_array.in_type_of(self.weight)
        num_elements = byte_array.values.shape[1]
        num_latents = min(num_latents or self.config.num_latents, num_elements)
        elements_BMC, mask_BM = aligned_to_end(byte_array.values, byte_array.mask)
        rotation = self.rotary(self._positions(elements_BMC, mask_BM), like=elements_BMC)
        queries_BND, inputs_BMC = self.cross_attend.normed(
            self._latents(elements_BMC, num_latents), elements_BMC
        )
        queries_BHNE, keys_BHME = self.cross_attend.attention.queries_and_keys(
            queries_BND,
            inputs_BMC,
            query_rotation=None if rotation is None else rotation.last(num_latents),
            key_rotation=rotation,
        )
        logits_BHNM = queries_BHNE @ keys_BHME.transpose(2, 3) / queries_BHNE.shape[-1] ** 0.5
        seen = causal_mask(num_latents, num_elements, mask_BM, like=logits_BHNM)
        weights_BHNM = logits_BHNM.masked_fill(~seen, -torch.inf).softmax(dim=-1)
        if byte_array.mask is None:
            return weights_BHNM, logits_BHNM
        places_BM = torch.arange(num_elements, device=elements_BMC.device).expand(len(elements_BMC), -1)
        back_BM = aligned_to_end(places_BM, byte_array.mask)[0].argsort(dim=1)
        index = back_BM[:, None, None].expand_as(weights_BHNM)
        return weights_BHNM.gather(3, index), logits_BHNM.gather(3, index)

    def _latents(self, elements_BMC: Tensor, num_latents: int) -> Tensor:
        """(B, N, D), what stands on the last elements before it attended to anything."""
        own_BNC = elements_BMC[:, -num_latents:]
        return own_BNC if self.projection is None else self.projection(own_BNC)

    @staticmethod
    def _positions(elements_BMC: Tensor, mask_BM: Tensor | None) -> Tensor:
        """(B or 1, M) places among the real elements."""
        if mask_BM is not None:
            return token_positions(mask_BM)
        return torch.arange(elements_BMC.shape[1], device=elements_BMC.device)[None]

    def _without_some(
        self, elements_BMC: Tensor, positions_BM: Tensor, mask_BM: Tensor | None, num_latents: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Leaves out the part `prefix_dropout` of a sample's real elements before the latents, rounded down."""
        batch, num_elements = elements_BMC.shape[:2]
        num_prefix = num_elements - num_latents
        device = elements_BMC.device
        real_BP = torch.ones(batch, num_prefix, dtype=torch.bool, device=device)
        if mask_BM is not None:
            real_BP = mask_BM[:, :num_prefix]
        num_real_B = real_BP.sum(dim=1)
        num_kept_B = num_real_B - (num_real_B * self.config.prefix_dropout).floor().to(torch.int64)
        # Random numbers decide; padding comes last.
        draws_BP = torch.rand(batch, num_prefix, device=device).masked_fill(~real_BP, 2.0)
        rank_BP = draws_BP.argsort(dim=1).argsort(dim=1)
        kept_BP = rank_BP < num_kept_B[:, None]
        most = int(num_kept_B.max())
        # As many places in each sample, those that are kept at the end and in order.
        places_BK = kept_BP.to(torch.int8).argsort(dim=1, stable=True)[:, num_prefix - most :]
        own_N = torch.arange(num_prefix, num_elements, device=device).expand(batch, -1)
        places_BM = torch.cat([places_BK, own_N], dim=1)
        kept_BM = torch.cat([kept_BP, torch.ones_like(own_N, dtype=torch.bool)], dim=1).gather(1, places_BM)
        if mask_BM is not None:
            kept_BM = kept_BM & mask_BM.gather(1, places_BM)
        elements_BMC = elements_BMC.gather(1, places_BM[..., None].expand(-1, -1, elements_BMC.shape[2]))
        positions_BM = positions_BM.expand(batch, -1).gather(1, places_BM)
        return elements_BMC, positions_BM, None if all_real(kept_BM) else kept_BM

    def _hiding_some(
        self, elements_BMC: Tensor, positions_BM: Tensor, mask_BM: Tensor | None, num_latents: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Hides each element with the probability `prefix_dropout`; a latent sees its own element in any case."""
        seen_BM = torch.rand(elements_BMC.shape[:2], device=elements_BMC.device) >= self.config.prefix_dropout
        return elements_BMC, positions_BM, seen_BM if mask_BM is None else seen_BM & mask_BM
