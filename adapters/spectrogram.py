"""Spectrograms: patches of time and frequency, or convolutions along time, beside their positions.

Shape legend: B batch, T time frames, F frequency bands, C channels, M elements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from perceiver_io.adapter import InputAdapter
from perceiver_io.byte_array import ByteArray
from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import (
    beside,
    check_finite,
    check_floating,
    check_mask,
    check_positive,
    check_shape,
    element_mask,
    patch_grid,
    spread_mask,
)
from perceiver_io.position import FourierPositionEncoding, LearnedPositionEncoding, PositionExtent
from perceiver_io.registry import register_adapter

__all__ = ["SpectrogramAdapter"]

_FRAMES = 4  # of an element, if nothing else is said


@register_adapter("spectrogram")
class SpectrogramAdapter(InputAdapter):
    """Cuts log-mel spectrograms (B, T, F) in patches, or lets convolutions look along their time.

    A mask is (B, T), True where a frame is real; masked frames are set to zero, and an element is real if any of its
    frames is.

    Args:
        config: The settings.
    """

    argument_names = ("input_values", "attention_mask")

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the adapter.

        Attributes:
            size: Nominal number of frames, and F. Spectrograms may have other numbers of frames at run time, all
                multiples of a patch.
            features: What the content of an element is: "patches", the values of a patch; "conv", what two
                convolutions over 5 frames and of stride 2 make of 4 frames, all bands together, as speech models have
                them in front.
            patch_size: Frames and bands of a patch; 4 frames of all bands if None, as "conv" has it.
            feature_channels: Width of "conv" features; 128 if None.
            position: "fourier", "learned", or "none". Positions are of time and frequency; where an element has all
                bands, of time alone.
            num_bands: Frequencies per axis of Fourier positions.
            max_resolution: Resolution per axis whose Nyquist frequency is the highest band; the nominal grid's if
                None.
            include_coordinates: Whether Fourier positions begin with the raw coordinates.
            position_channels: Width of learned positions.
            position_extent: What -1 to 1 covers: "nominal", a spectrogram of the nominal size, so that an element has
                the same position in spectrograms of any length, longer ones go on past 1, and padding changes nothing;
                "input", each whatever its length. Learned positions are cut with "nominal", interpolated with "input".
        """

        size: tuple[int, int]
        features: Literal["patches", "conv"] = "patches"
        patch_size: tuple[int, int] | None = None
        feature_channels: int | None = None
        position: Literal["fourier", "learned", "none"] = "fourier"
        num_bands: int = 32
        max_resolution: tuple[int, int] | None = None
        include_coordinates: bool = True
        position_channels: int = 64
        position_extent: PositionExtent = "nominal"

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(self, "size", "patch_size", "feature_channels")
            check_positive(self, "num_bands", "max_resolution", "position_channels")
            if self.features == "conv" and self.patch_size is not None:
                raise ValueError(
                    f"patch_size {self.patch_size} goes with features='patches', got features='conv'."
                )
            if self.features != "conv" and self.feature_channels is not None:
                raise ValueError(
                    f"feature_channels goes with features='conv', got features={self.features!r}."
                )
            self.grid(self.size[0])

        @property
        def patch(self) -> tuple[int, int]:
            """Frames and bands of an element."""
            return (_FRAMES, self.size[1]) if self.patch_size is None else self.patch_size

        def grid(self, num_frames: int) -> tuple[int, ...]:
            """Returns the grid of elements, time and frequency, of a spectrogram of so many frames.

            Raises:
                ValueError: It is shorter than a patch, or no multiple of it.
            """
            size = (num_frames, self.size[1])
            return patch_grid(size, self.patch, what="The spectrogram", unit="frames and bands")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.convolutions = None
        if config.features == "conv":
            self.num_content_channels = 128 if config.feature_channels is None else config.feature_channels
            self.convolutions = FrameConvolutions(config.size[1], self.num_content_channels)
        else:
            self.num_content_channels = math.prod(config.patch)
        nominal = config.grid(config.size[0])
        # No positions along an axis of one element: they would tell nothing.
        self.position_axes = 1 if nominal[1] == 1 else 2
        self.position = _position(config, nominal[: self.position_axes])
        position_channels = 0 if self.position is None else self.position.num_channels
        self.num_channels = self.num_content_channels + position_channels
        self.num_target_channels = math.prod(config.patch)
        self.depends_on_extent = self.position is not None and config.position_extent == "input"

    def forward(self, x: Tensor, mask: Tensor | None = None) -> ByteArray:
        """Flattens a batch of spectrograms.

        Args:
            x: (B, T, F) floating-point spectrograms.
            mask: (B, T) bool, True where a frame is real.

        Returns:
            The byte array, with content first (that of patches frame by frame), then position.

        Raises:
            ValueError: The rank, bands, type or length does not fit, the batch is empty, or a real value is NaN.
        """
        self._check(x, mask)
        grid = self.config.grid(x.shape[1])
        if mask is not None:
            x = torch.where(mask[..., None], x, 0)
        check_finite(x, name="The batch of spectrograms")
        if self.convolutions is None:
            frames, bands = self.config.patch
            values_BMC = rearrange(x, "b (t i) (f j) -> b (t f) (i j)", i=frames, j=bands)
        else:
            values_BMC = self.convolutions(x, mask)
        if self.position is not None:
            position_MP = self.position(grid[: self.position_axes], like=values_BMC)
            values_BMC = beside(values_BMC, position_MP)
        mask_BM = None
        if mask is not None:  # a frame is real or not in all of its bands
            mask_BM = element_mask(mask, grid[:1]).repeat_interleave(grid[1], dim=1)
        return ByteArray(
            values=values_BMC, mask=mask_BM, grid=grid, num_content_channels=self.num_content_channels
        )

    def targets(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the values that each element stands for, frame by frame.

        Args:
            x: As `forward`.
            mask: As `forward`.

        Raises:
            ValueError: As `forward`.
        """
        self._check(x, mask)
        self.config.grid(x.shape[1])
        if mask is not None:
            x = torch.where(mask[..., None], x, torch.nan)
        frames, bands = self.config.patch
        return rearrange(x, "b (t i) (f j) -> b (t f) (i j)", i=frames, j=bands)

    def from_targets(self, targets_BMV: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Returns the spectrograms (B, T, F) that have these targets."""
        return rearrange(
            targets_BMV, "b (t f) (i j) -> b (t i) (f j)", t=grid[0], f=grid[1], i=self.config.patch[0]
        )

    def mask_without(self, hidden_BM: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor | None:
        """Hides the frames of hidden elements from the convolutions, if there are any."""
        if self.convolutions is None:
            return mask
        real_BT = torch.ones_like(x[..., 0], dtype=torch.bool) if mask is None else mask
        return spread_mask(hidden_BM, self.config.grid(x.shape[1])[:1], real_BT)

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        check_shape(
            x,
            ("batch", "frames", self.config.size[1]),
            name="Spectrograms",
            advice="Time comes before the bands.",
        )
        check_floating(
            x, name="Spectrograms", advice="They are logarithms of energies, not samples: convert them."
        )
        check_mask(mask, x.shape[:2], x=x, name="spectrograms")


class FrameConvolutions(nn.Module):
    """Two convolutions along time, each over 5 frames and of stride 2, with GELU, and a layer norm at the end.

    Args:
        num_bands: F.
        num_channels: C.
    """

    def __init__(self, num_bands: int, num_channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(width, num_channels, kernel_size=5, stride=2, padding=2)
            for width in (num_bands, num_channels)
        )
        self.norm = nn.LayerNorm(num_channels)

    def forward(self, x_BTF: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Returns (B, T / 4, C).

        Args:
            x_BTF: The frames, zero where they are masked.
            mask_BT: True where a frame is real. What the first convolution makes of masked frames alone is zero for the
                second.
        """
        x_BCT = x_BTF.transpose(1, 2)
        for layer in self.layers:
            x_BCT = nn.functional.gelu(layer(x_BCT))
            if mask_BT is not None:
                mask_BT = element_mask(mask_BT, x_BCT.shape[2:])
                x_BCT = torch.where(mask_BT[:, None], x_BCT, 0)
        normed: Tensor = self.norm(x_BCT.transpose(1, 2))
        return normed


def _position(
    config: SpectrogramAdapter.Config, grid: tuple[int, ...]
) -> FourierPositionEncoding | LearnedPositionEncoding | None:
    nominal = config.position_extent == "nominal"
    if config.position == "none":
        return None
    if config.position == "learned":
        return LearnedPositionEncoding(
            grid=grid,
            num_channels=config.position_channels,
            resize="truncate" if nominal else "interpolate",
        )
    return FourierPositionEncoding(
        num_bands=config.num_bands,
        max_resolution=(config.max_resolution or grid)[: len(grid)],
        include_coordinates=config.include_coordinates,
        nominal_grid=grid if nominal else None,
    )
