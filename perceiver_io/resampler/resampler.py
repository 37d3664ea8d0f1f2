"""The resampler of vision-language models: features of any number in, a fixed number of latents out.

Shape legend: B batch, T media of a sample, F frames of a medium, M features of a frame, C input channels, N latents,
D latent channels, O output channels, S sets that are resampled: B * T, R features of such a set: F * M.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from perceiver_io.input_tools import check_finite, check_floating, check_mask, check_shape
from perceiver_io.layers import LearnedArray, linear, under_autocast
from perceiver_io.resampler.layers import (
    FeedForwardKind,
    GatedFeedForward,
    Norm,
    NormPosition,
    ResamplerLayer,
    norm_layer,
)
from perceiver_io.resampler.layouts import read_layout, write_layout
from perceiver_io.value_checks import looks_at

__all__ = ["PerceiverResampler", "Projection"]

Projection = Literal["none", "linear", "swiglu"]

# Published resamplers add positions to features of about unit variance, which they are to be heard beside.
_POSITION_STD = 1.0


class PerceiverResampler(nn.Module):
    """Latents that read features layer by layer, among themselves and from the input (Flamingo, section 2.1).

    It stands alone: no configuration, no task. What differs between published resamplers is an option.

    Args:
        channels: C.
        num_latents: N, those that are learned. With 0, each call gives its own.
        depth: Layers.
        latent_channels: D; C by default.
        output_channels: O: a last linear layer makes the latents so wide. None has none, and O is D.
        num_heads: Attention heads.
        num_kv_heads: Heads with keys and values of their own, which groups of heads share; all by default.
        head_channels: Channels of each head; D / `num_heads` by default.
        latents_among_keys: Whether the latents stand beside the inputs among the keys, so that they see each other.
        qk_norm: Whether queries and keys of each head go through a norm.
        feed_forward: "gelu", "gelu_tanh", "relu", "squared_relu"; or gated: "geglu", "swiglu".
        feed_forward_bias: Whether its layers have biases.
        widening_factor: How many times as wide as the latents the hidden layer of the feed-forwards is.
        norm: "layer", or "rms": root mean square.
        norm_eps: Of all norms; 1e-5 by default, 1e-6 of root mean squares.
        norm_position: Norms stand "before" each attention and feed-forward, and after the last; "after" each sum; or
            "none" but that after the last.
        input_projection: What takes the features to the latents' width: a "linear" layer, a "swiglu" feed-forward, or
            "none", which is possible where both are as wide or the latents are not among the keys. By default, "linear"
            where the widths differ, else "none".
        projection_channels: Hidden width of a "swiglu" projection; `widening_factor` times D by default.
        num_positions: The most features of a frame, if each has a learned position.
        num_frames: The most frames, if inputs have an axis of them, each with a learned time; all frames of a medium
            are read together.
        num_media: The most media, if inputs have an axis of them, each with a learned place; each is resampled on its
            own.
        num_pooled_latents: Further latents, which a linear layer makes of the mean of the inputs.
        dropout: Probability that a channel of a residual branch is dropped in training.
        attention_dropout: Probability that an attention weight is dropped in training.

    Raises:
        ValueError: A number is out of range, a kind is unknown, or widths do not fit each other.
    """

    def __init__(
        self,
        channels: int,
        num_latents: int,
        depth: int,
        *,
        latent_channels: int | None = None,
        output_channels: int | None = None,
        num_heads: int = 8,
        num_kv_heads: int | None = None,
        head_channels: int | None = None,
        latents_among_keys: bool = True,
        qk_norm: bool = False,
        feed_forward: FeedForwardKind = "gelu",
        feed_forward_bias: bool = False,
        widening_factor: float = 4,
        norm: Norm = "layer",
        norm_eps: float | None = None,
        norm_position: NormPosition = "before",
        input_projection: Projection | None = None,
        projection_channels: int | None = None,
        num_positions: int | None = None,
        num_frames: int | None = None,
        num_media: int | None = None,
        num_pooled_latents: int = 0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        latent_channels = channels if latent_channels is None else latent_channels
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        _check_at_least(
            1,
            channels=channels,
            depth=depth,
            latent_channels=latent_channels,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
        )
        _check_at_least(
            1,
            or_none=True,
            output_channels=output_channels,
            head_channels=head_channels,
            projection_channels=projection_channels,
            num_positions=num_positions,
            num_frames=num_frames,
            num_media=num_media,
        )
        _check_at_least(0, num_latents=num_latents, num_pooled_latents=num_pooled_latents)
        _check_one_of(Norm, norm=norm)
        _check_one_of(NormPosition, norm_position=norm_position)
        _check_one_of(FeedForwardKind, feed_forward=feed_forward)
        if input_projection is None:
            input_projection = "none" if channels == latent_channels else "linear"
        _check_one_of(Projection, input_projection=input_projection)
        for name, probability in (("dropout", dropout), ("attention_dropout", attention_dropout)):
            if not (_is_number(probability) and 0 <= probability < 1):
                raise ValueError(f"{name} must be in [0, 1), got {probability!r:.80}.")
        if not (_is_number(widening_factor) and round(widening_factor * latent_channels) >= 1):
            raise ValueError(f"widening_factor must be above zero, got {widening_factor!r:.80}.")
        if norm_eps is not None and not (_is_number(norm_eps) and norm_eps > 0):
            raise ValueError(f"norm_eps must be above zero, got {norm_eps!r:.80}.")
        if num_heads % num_kv_heads:
            raise ValueError(
                f"num_heads must be a multiple of num_kv_heads, got {num_heads} and {num_kv_heads}."
            )
        if head_channels is None:
            if latent_channels % num_heads:
                raise ValueError(
                    f"{latent_channels} latent channels cannot be divided among {num_heads} heads: choose another "
                    "num_heads, or say head_channels."
                )
            head_channels = latent_channels // num_heads
        if input_projection == "none" and latents_among_keys and channels != latent_channels:
            raise ValueError(
                f"Latents of {latent_channels} channels cannot stand beside inputs of {channels} among the keys. Take "
                'input_projection="linear" or "swiglu", or latents_among_keys=False.'
            )
        if projection_channels is not None and input_projection != "swiglu":
            raise ValueError(
                f'projection_channels is for input_projection="swiglu", got {input_projection!r}.'
            )
        self.channels = channels
        self.latent_channels = latent_channels
        self.output_channels = latent_channels if output_channels is None else output_channels
        self.kinds = {
            "latents_among_keys": latents_among_keys,
            "feed_forward": feed_forward,
            "feed_forward_bias": feed_forward_bias,
            "norm": norm,
            "norm_position": norm_position,
        }
        self.latents = LearnedArray(num_latents, latent_channels) if num_latents else None
        self.positions = _positions(num_positions, channels)
        self.frames = _positions(num_frames, channels)
        self.media = _positions(num_media, channels)
        self.input_projection: nn.Module = nn.Identity()
        if input_projection == "linear":
            self.input_projection = linear(channels, latent_channels)
        elif input_projection == "swiglu":
            if projection_channels is None:
                projection_channels = round(widening_factor * latent_channels)
            self.input_projection = GatedFeedForward(
                channels, hidden_channels=projection_channels, output_channels=latent_channels, kind="swiglu"
            )
        read_channels = channels if input_projection == "none" else latent_channels
        self.pooled_latents = None
        if num_pooled_latents:
            self.pooled_latents = _PooledLatents(
                read_channels, num_pooled_latents, latent_channels, norm, norm_eps
            )
        self.layers = nn.ModuleList(
            ResamplerLayer(
                latent_channels,
                input_channels=read_channels,
                latents_among_keys=latents_among_keys,
                num_heads=num_heads,
                num_kv_heads=num_kv_heads,
                head_channels=head_channels,
                qk_norm=qk_norm,
                feed_forward=feed_forward,
                feed_forward_bias=feed_forward_bias,
                widening_factor=widening_factor,
                norm=norm,
                norm_eps=norm_eps,
                norm_position=norm_position,
                dropout=dropout,
                attention_dropout=attention_dropout,
            )
            for _ in range(depth)
        )
        self.output_projection: nn.Module = nn.Identity()
        if output_channels is not None:
            self.output_projection = linear(latent_channels, output_channels)
        self.norm: nn.Module = nn.Identity()
        if norm_position != "after":
            self.norm = norm_layer(norm, self.output_channels, norm_eps)

    def forward(
        self, features: Tensor, mask: Tensor | None = None, *, latents: Tensor | None = None
    ) -> Tensor:
        """Resamples features.

        Args:
            features: (B, M, C) floating point; with an axis of media after the batch if there is `num_media`, and one
                of frames before M if there is `num_frames`: (B, T, F, M, C) with both.
            mask: True where a feature is real, bool and shaped as the features without channels; all are if None. What
                is masked changes nothing, whatever it holds. A medium that is masked wholly has latents of zeros.
            latents: (B, N', D), or (B, T, N', D) where there are media: latents of each sample's own, which stand
                before those that are pooled, and these before those that are learned.

        Returns:
            (B, N, O), or (B, T, N, O); N counts the given, the pooled and the learned latents.

        Raises:
            ValueError: A type or shape does not fit, there are no latents, or, where values are checked (see
                `perceiver_io.check_values`), a sample is masked wholly, or a real feature is NaN or infinite.
        """
        self._check(features, mask, latents)
        if mask is not None:  # so that not even NaN gets anywhere
            features = torch.where(mask[..., None], features, 0)
        check_finite(features, name="The features")
        if latents is not None:
            check_finite(latents, name="The latents", advice="Look at what made them.")
        features = self._placed(self._in_our_type(features))
        media = features.shape[:2] if self.media is not None else None
        x_SRC = features.flatten(0, 1) if media else features
        x_SRC = self.input_projection(x_SRC.flatten(1, -2))
        mask_SR = None if mask is None else mask.reshape(x_SRC.shape[:2])
        there_S: Tensor | None = None
        if media and mask_SR is not None:
            there_S = mask_SR.any(dim=1)
            mask_SR = mask_SR | ~there_S[:, None]
        if latents is not None:
            latents = self._in_our_type(latents.flatten(0, 1) if media else latents)
        latents_SND = self._first_latents(x_SRC, mask_SR, latents)
        mask_SK = mask_SR
        if mask_SR is not None and self.kinds["latents_among_keys"]:
            mask_SK = torch.cat([mask_SR, torch.ones_like(latents_SND[..., 0], dtype=torch.bool)], dim=1)
        for layer in self.layers:
            latents_SND = layer(latents_SND, x_SRC, mask_SK)
        y_SNO = self.norm(self.output_projection(latents_SND))
        if there_S is not None:
            y_SNO = torch.where(there_S[:, None, None], y_SNO, 0)
        return y_SNO.unflatten(0, media) if media else y_SNO

    def _in_our_type(self, x: Tensor) -> Tensor:
        if under_autocast(x):
            return x
        # Of latents or norms, if there are any: weights may be quantised.
        return x.to(
            next((weight.dtype for weight in self.parameters() if weight.is_floating_point()), x.dtype)
        )

    def _placed(self, features: Tensor) -> Tensor:
        """Adds the learned positions, each along an axis of its own."""
        axis = -2
        for positions, has_axis in ((self.positions, True), (self.frames, False), (self.media, False)):
            if positions is not None:
                rows = positions()[: features.shape[axis]].to(features.dtype)
                features = features + rows.unflatten(0, (-1, *(1,) * (-2 - axis)))
            if positions is not None or has_axis:
                axis -= 1
        return features

    def _first_latents(self, x_SRC: Tensor, mask_SR: Tensor | None, given_SND: Tensor | None) -> Tensor:
        parts = [] if given_SND is None else [given_SND]
        if self.pooled_latents is not None:
            parts.append(self.pooled_latents(x_SRC, mask_SR))
        if self.latents is not None:
            parts.append(self.latents().to(x_SRC.dtype).expand(x_SRC.shape[0], -1, -1))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _check(self, features: Tensor, mask: Tensor | None, latents: Tensor | None) -> None:
        axes: list[int | str] = ["samples"]
        limits: dict[int, tuple[str, LearnedArray]] = {}
        for name, positions in (("media", self.media), ("frames", self.frames), ("features", self.positions)):
            if positions is not None:
                limits[len(axes)] = (name, positions)
            if positions is not None or name == "features":
                axes.append(name)
        axes.append(self.channels)
        check_shape(
            features,
            axes,
            name="Features",
            advice="An axis of media is there with num_media, one of frames with num_frames.",
        )
        check_floating(features, name="Features", advice="Convert them, say with .float().")
        for axis, (name, table) in limits.items():
            most = table.weight.shape[0]
            if features.shape[axis] > most:
                raise ValueError(
                    f"There are learned positions for {most} {name}, got {features.shape[axis]}: "
                    f"{tuple(features.shape)}. Give fewer, or build the resampler with a larger num_"
                    f"{'positions' if name == 'features' else name}."
                )
        check_mask(mask, features.shape[:-1], x=features, name="features")
        if mask is not None and looks_at(mask) and not mask.flatten(1).any(dim=1).all():
            empty = [index for index, one in enumerate(mask.flatten(1).any(dim=1).tolist()) if not one]
            raise ValueError(
                f"Each sample needs a feature that is real, but samples {empty[:5]} have none. Leave them out."
            )
        if latents is not None:
            leading = features.shape[: 1 if self.media is None else 2]
            check_shape(
                latents,
                [*leading, "latents", self.latent_channels],
                name="Latents",
                advice="One set for each sample.",
            )
            check_floating(latents, name="Latents", advice="Convert them, say with .float().")
        elif self.latents is None and self.pooled_latents is None:
            raise ValueError(
                "This resampler has no latents of its own (num_latents=0): give it some, latents=…."
            )

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, Tensor],
        *,
        layout: str | None = None,
        prefix: str = "",
        head_channels: int | None = None,
        norm_eps: float | None = None,
    ) -> PerceiverResampler:
        """Builds a resampler of the tensors of a published one; its sizes are theirs.

        Args:
            state: Tensors by name, as `safetensors.torch.load_file` reads them.
            layout: Whose names they are: "flamingo-pytorch", "open-flamingo", "idefics", "idefics2",
                "idefics2-connector" (with the projection before the resampler), "ip-adapter", "xtts". If None, it is
                told by the names.
            prefix: What the names of the resampler's tensors begin with; tensors with other names are left alone.
            head_channels: Channels of a head, which tensors do not say; by default what the published code has: 64, of
                the two Idefics 96.
            norm_eps: Of the norms, likewise; by default as the published code has it.

        Returns:
            The resampler, in the type and on the device of the tensors, which it holds copies of.

        Raises:
            ValueError: The layout is unknown or cannot be told, or tensors are missing, not expected or of a wrong
                shape; all of them are named.
        """
        read = read_layout(state, layout=layout, prefix=prefix, head_channels=head_channels)
        options: dict[str, Any] = dict(read.options)
        if norm_eps is not None:
            options["norm_eps"] = norm_eps
        with torch.device("meta"):
            resampler = cls(**options)
        read.check_fit(resampler.state_dict())
        resampler.load_state_dict(read.tensors, assign=True)
        return resampler

    def to_state_dict(self, layout: str) -> dict[str, Tensor]:
        """Returns the tensors under the names, and in the shapes, of a published layout.

        Args:
            layout: As in `from_state_dict`.

        Raises:
            ValueError: The layout is unknown, lacks a tensor of this resampler, has one that this lacks, or its code
                would compute something else.
        """
        return write_layout(self.state_dict(), layout, kinds=self.kinds)


class _PooledLatents(nn.Module):
    """Latents out of the mean of the inputs."""

    def __init__(
        self, channels: int, num_latents: int, latent_channels: int, norm: Norm, norm_eps: float | None
    ) -> None:
        super().__init__()
        self.num_latents = num_latents
        self.norm = norm_layer(norm, channels, norm_eps)
        self.output = linear(channels, num_latents * latent_channels)

    def forward(self, x_SRC: Tensor, mask_SR: Tensor | None) -> Tensor:
        if mask_SR is None:
            mean_SC = x_SRC.mean(dim=1)
        else:
            real_SR1 = mask_SR[..., None]
            mean_SC = torch.where(real_SR1, x_SRC, 0).sum(dim=1) / real_SR1.sum(dim=1)
        return self.output(self.norm(mean_SC)).unflatten(1, (self.num_latents, -1))


def _positions(count: int | None, channels: int) -> LearnedArray | None:
    return None if count is None else LearnedArray(count, channels, std=_POSITION_STD)


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _check_at_least(least: int, *, or_none: bool = False, **numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is None and or_none:
            continue
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {number!r}.")


def _check_one_of(kinds: Any, **choices: str) -> None:
    for name, choice in choices.items():
        if choice not in get_args(kinds):
            raise ValueError(f"{name} must be one of {', '.join(get_args(kinds))}, got {choice!r}.")
