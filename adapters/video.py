"""Video: patches in space and time, or convolutional features of each frame, beside 3-D positions.

Shape legend: B batch, T frames, F image channels, H height, W width, C channels of the byte array,
I = B x T frames of a batch, M = grid time x grid height x grid width elements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from perceiver_io.adapter import InputAdapter
from perceiver_io.adapters.downsampling import DownsamplingConvolution
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
from perceiver_io.position import FourierPositionEncoding, PositionExtent
from perceiver_io.registry import register_adapter

__all__ = ["VideoAdapter"]


@register_adapter("video")
class VideoAdapter(InputAdapter):
    """Cuts videos (B, T, F, H, W) in patches (Perceiver IO, section 4.3 on multimodal autoencoding).

    A mask is (B, T, H, W), True where a pixel is real; masked pixels are set to zero, and an element is real if any of
    its pixels is.

    Args:
        config: The settings.
    """

    argument_names = ("pixel_values", "pixel_mask")

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the adapter.

        Attributes:
            size: Nominal number of frames, height and width in pixels; fixes, by default, the resolution of the
                positions. Videos may have other sizes at run time, all multiples of a patch.
            image_channels: F.
            features: What the content of an element is: "patches", the values of a patch; "conv", for each frame what
                the image adapter's "conv" is: a 7x7 convolution of stride 2, batch norm, ReLU and a 3x3 max-pool of
                stride 2, which make one element of 1x4x4 pixels.
            patch_size: Frames, rows and columns of a patch; (1, 4, 4) for "conv".
            feature_channels: Width of "conv" features; 64 if None.
            num_bands: Frequencies per axis of the Fourier positions.
            max_resolution: Resolution per axis whose Nyquist frequency is the highest band; the nominal grid's if
                None.
            include_coordinates: Whether positions begin with the raw coordinates.
            position_extent: What -1 to 1 covers: "input", each video whatever its size, as published; "nominal", one of
                the nominal size. Then an element has the same position in videos of any size, larger ones go on past
                1, and padding changes nothing.
        """

        size: tuple[int, int, int]
        image_channels: int = 3
        features: Literal["patches", "conv"] = "patches"
        patch_size: tuple[int, int, int] = (1, 4, 4)
        feature_channels: int | None = None
        num_bands: int = 32
        max_resolution: tuple[int, int, int] | None = None
        include_coordinates: bool = True
        position_extent: PositionExtent = "input"

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(self, "size", "image_channels", "patch_size", "feature_channels")
            check_positive(self, "num_bands", "max_resolution")
            if self.features == "conv" and self.patch_size != (1, 4, 4):
                raise ValueError(
                    f"features='conv' makes an element of 1x4x4 pixels, got patch_size={self.patch_size}: leave it out."
                )
            if self.feature_channels is not None and self.features != "conv":
                raise ValueError(
                    f"feature_channels goes with features='conv', got features={self.features!r}."
                )
            self.grid(self.size)

        def grid(self, size: tuple[int, int, int]) -> tuple[int, ...]:
            """Returns the grid of elements of a video of so many frames, rows and columns.

            Raises:
                ValueError: The size is smaller than a patch, or no multiple of it.
            """
            return patch_grid(size, self.patch_size, what="The video", unit="frames, rows and columns")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.position = FourierPositionEncoding(
            num_bands=config.num_bands,
            max_resolution=config.max_resolution or config.grid(config.size),
            include_coordinates=config.include_coordinates,
            nominal_grid=config.grid(config.size) if config.position_extent == "nominal" else None,
        )
        self.depends_on_extent = config.position_extent == "input"
        self.convolution = None
        if config.features == "conv":
            self.num_content_channels = 64 if config.feature_channels is None else config.feature_channels
            self.convolution = DownsamplingConvolution(config.image_channels, self.num_content_channels)
        else:
            self.num_content_channels = math.prod(config.patch_size) * config.image_channels
        self.num_channels = self.num_content_channels + self.position.num_channels
        self.num_target_channels = math.prod(config.patch_size) * config.image_channels

    def forward(self, x: Tensor, mask: Tensor | None = None) -> ByteArray:
        """Flattens a batch of videos.

        Args:
            x: (B, T, F, H, W) floating-point videos.
            mask: (B, T, H, W) bool, True where a pixel is real.

        Returns:
            The byte array. Content comes first, that of patches in the order of the original release, that is
            frame, row, column, image channel.

        Raises:
            ValueError: The rank, channels, type or size does not fit, the batch is empty, or a real pixel is NaN.
        """
        self._check(x, mask)
        num_frames, _, height, width = x.shape[1:]
        grid = self.config.grid((num_frames, height, width))
        if mask is not None:
            x = torch.where(mask[:, :, None], x, 0)
        check_finite(x, name="The batch of videos")
        content_BMC = self._patches(x) if self.convolution is None else self._convolved(x, mask)
        return ByteArray(
            values=beside(content_BMC, self.position(grid, like=content_BMC)),
            mask=None if mask is None else element_mask(mask, grid),
            grid=grid,
            num_content_channels=self.num_content_channels,
        )

    def targets(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the pixels that each element stands for: frame by frame, row by row, each with its channels.

        Args:
            x: As `forward`.
            mask: As `forward`.

        Raises:
            ValueError: As `forward`.
        """
        self._check(x, mask)
        self.config.grid((x.shape[1], x.shape[3], x.shape[4]))
        return self._patches(x if mask is None else torch.where(mask[:, :, None], x, torch.nan))

    def from_targets(self, targets_BMV: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Returns the videos (B, T, F, H, W) that have these targets."""
        frames, rows, columns = self.config.patch_size
        return rearrange(
            targets_BMV,
            "b (t h w) (i j k f) -> b (t i) f (h j) (w k)",
            t=grid[0],
            h=grid[1],
            w=grid[2],
            i=frames,
            j=rows,
            k=columns,
        )

    def mask_without(self, hidden_BM: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor | None:
        """Hides the pixels of hidden elements from the convolution, if there is one."""
        if self.convolution is None:
            return mask
        real_BTHW = torch.ones_like(x[:, :, 0], dtype=torch.bool) if mask is None else mask
        return spread_mask(hidden_BM, self.config.grid((x.shape[1], x.shape[3], x.shape[4])), real_BTHW)

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        check_shape(
            x,
            ("batch", "frames", self.config.image_channels, "height", "width"),
            name="Videos",
            advice="Channels come after the frames.",
        )
        check_floating(
            x, name="Videos", advice="Pixels are expected in [0, 1] or [-1, 1]: convert and scale them."
        )
        batch_size, num_frames, _, height, width = x.shape
        check_mask(mask, (batch_size, num_frames, height, width), x=x, name="videos")

    def _patches(self, x_BTFHW: Tensor) -> Tensor:
        frames, rows, columns = self.config.patch_size
        return rearrange(x_BTFHW, "b (t i) f (h j) (w k) -> b (t h w) (i j k f)", i=frames, j=rows, k=columns)

    def _convolved(self, x_BTFHW: Tensor, mask_BTHW: Tensor | None) -> Tensor:
        assert self.convolution is not None
        mask_IHW = None if mask_BTHW is None else mask_BTHW.flatten(0, 1)
        features_ICHW = self.convolution(x_BTFHW.flatten(0, 1), mask_IHW)
        return rearrange(features_ICHW, "(b t) c h w -> b (t h w) c", b=x_BTFHW.shape[0])
