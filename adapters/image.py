"""Images: pixels, patches or convolutional features beside 2-D positions.

Shape legend: B batch, F image channels, H height, W width, C channels of the byte array, P position channels,
M = grid height x grid width elements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from perceiver_io.adapter import InputAdapter
from perceiver_io.adapters.conv_stem import STEM_CHANNELS, ConvStem, check_widths
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
from perceiver_io.layers import linear
from perceiver_io.position import FourierPositionEncoding, LearnedPositionEncoding, PositionExtent
from perceiver_io.registry import register_adapter

__all__ = ["ImageAdapter"]


@register_adapter("image")
class ImageAdapter(InputAdapter):
    """Flattens images (B, F, H, W) of any height and width (Perceiver IO, section 4.4 and appendix on ImageNet).

    A mask is (B, H, W), True where a pixel is real; masked pixels are set to zero, and an element is real if any of its
    pixels is.

    Args:
        config: The settings.
    """

    argument_names = ("pixel_values", "pixel_mask")

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the adapter.

        Attributes:
            size: Nominal height and width in pixels; fixes the table of learned positions and, by default, the
                resolution of Fourier positions. Images may have other sizes at run time.
            image_channels: F.
            features: What the content of an element is: "pixels", one pixel's values; "patches", the values of a
                patch; "conv1x1", a learned projection of one pixel; "conv", a 7x7 convolution of stride 2, batch
                norm, ReLU and a 3x3 max-pool of stride 2; "conv_stem", several 3x3 convolutions of stride 2, each
                with batch norm and ReLU, each twice as wide as the one before.
            patch_size: Side of a patch in pixels; divides height and width. For "patches" only.
            feature_channels: Width of "conv1x1" (256 as published), "conv" (64 as published) and "conv_stem" (128 by
                default) features.
            num_convolutions: How many "conv_stem" has: with 3, an element stands for 8x8 pixels.
            num_residual_convolutions: How many 3x3 convolutions follow those of "conv_stem", residual and of stride 1.
            conv_padding: How "conv" pads. "same": convolution and max-pool as TensorFlow's 'SAME', as the original
                release (224 pixels become 56 elements). "symmetric": the convolution by 3 pixels on every side and
                the max-pool not at all, as `transformers` (224 pixels become 55 elements).
            position: "fourier", "learned", or "none".
            num_bands: Frequencies per axis of Fourier positions.
            max_resolution: Resolution per axis whose Nyquist frequency is the highest band; the nominal grid's if
                None.
            include_coordinates: Whether Fourier positions begin with the raw coordinates.
            position_channels: Width of learned positions.
            position_projection: Width that positions are projected to; None leaves them as they are.
            position_extent: What -1 to 1 covers: "input", each image whatever its size, as published; "nominal", one of
                the nominal size. Then an element has the same position in images of any size, larger ones go on past
                1, and padding changes nothing.
                Learned positions are interpolated with "input", cut with "nominal". With convolutions, heights and
                widths should then be multiples of an element's, which "symmetric" padding does not take.
            combine: Whether positions are put beside the content ("concat") or added to it ("add"); added, both
                must be equally wide.
        """

        size: tuple[int, int]
        image_channels: int = 3
        features: Literal["pixels", "patches", "conv1x1", "conv", "conv_stem"] = "pixels"
        patch_size: int = 1
        feature_channels: int | None = None
        num_convolutions: int = 3
        num_residual_convolutions: int = 0
        conv_padding: Literal["same", "symmetric"] = "same"
        position: Literal["fourier", "learned", "none"] = "fourier"
        num_bands: int = 64
        max_resolution: tuple[int, int] | None = None
        include_coordinates: bool = True
        position_channels: int = 256
        position_projection: int | None = None
        position_extent: PositionExtent = "input"
        combine: Literal["concat", "add"] = "concat"

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(
                self,
                "image_channels",
                "patch_size",
                "feature_channels",
                "num_convolutions",
                "num_bands",
                "max_resolution",
                "position_channels",
                "position_projection",
            )
            if self.patch_size != 1 and self.features != "patches":
                raise ValueError(
                    f"patch_size {self.patch_size} goes with features='patches', got features={self.features!r}."
                )
            if self.feature_channels is not None and self.features not in ("conv1x1", "conv", "conv_stem"):
                raise ValueError(
                    "feature_channels goes with features='conv1x1', 'conv' or 'conv_stem', got features="
                    f"{self.features!r}."
                )
            if self.features == "conv_stem":
                check_widths(self.feature_channels or STEM_CHANNELS, num_convolutions=self.num_convolutions)
            elif self.num_convolutions != 3 or self.num_residual_convolutions:
                raise ValueError(
                    f"num_convolutions {self.num_convolutions} and num_residual_convolutions "
                    f"{self.num_residual_convolutions} go with features='conv_stem', got features={self.features!r}."
                )
            if self.num_residual_convolutions < 0:
                raise ValueError(
                    f"num_residual_convolutions must be at least 0, got {self.num_residual_convolutions}."
                )
            if self.conv_padding != "same" and self.features != "conv":
                raise ValueError(
                    f"conv_padding={self.conv_padding!r} goes with features='conv', got features={self.features!r}."
                )
            if self.position_extent == "nominal" and self.conv_padding == "symmetric":
                raise ValueError(
                    "position_extent='nominal' goes with conv_padding='same': with 'symmetric' the last elements of a "
                    "padded image see more than those of the image alone."
                )
            self.grid(self.size)

        def grid(self, size: tuple[int, int]) -> tuple[int, int]:
            """Returns the grid of elements of an image of this size.

            Raises:
                ValueError: The size is smaller than a patch or than what a convolution needs, or no multiple of a
                    patch.
            """
            height, width = size
            rows, columns = patch_grid(
                size, (self.patch_size, self.patch_size), what="The image", unit="pixels"
            )
            if self.features == "conv_stem":
                for _ in range(self.num_convolutions):
                    rows, columns = _halved(rows), _halved(columns)
            if self.features != "conv":
                return rows, columns
            if self.conv_padding == "same":
                return _halved(_halved(height)), _halved(_halved(width))
            if min(size) < 5:
                raise ValueError(
                    f"The image of {height}x{width} pixels is smaller than 5x5, the least that conv_padding="
                    "'symmetric' leaves an element of. Enlarge the image, or use conv_padding='same'."
                )
            return (_halved(height) - 1) // 2, (_halved(width) - 1) // 2

        @property
        def element_side(self) -> int | None:
            """Side in pixels of what an element stands for; None where elements do not cover an image evenly."""
            if self.features == "conv":
                return 4 if self.conv_padding == "same" else None
            return 2**self.num_convolutions if self.features == "conv_stem" else self.patch_size

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.features, self.num_content_channels = _features(config)
        self.position, num_position_channels = _position(config)
        self.depends_on_extent = config.conv_padding == "symmetric" or (
            config.position != "none" and config.position_extent == "input"
        )
        self.position_projection: nn.Module = nn.Identity()
        if config.position_projection is not None and self.position is not None:
            self.position_projection = linear(num_position_channels, config.position_projection)
            num_position_channels = config.position_projection
        if config.combine == "add" and self.position is not None:
            if num_position_channels != self.num_content_channels:
                raise ValueError(
                    f"Positions of {num_position_channels} channels cannot be added to features of "
                    f"{self.num_content_channels}. Set position_projection={self.num_content_channels}, or "
                    "combine='concat'."
                )
            self.num_channels = self.num_content_channels
        else:
            self.num_channels = self.num_content_channels + num_position_channels
        if config.element_side is not None:
            self.num_target_channels = config.image_channels * config.element_side**2

    def forward(self, x: Tensor, mask: Tensor | None = None) -> ByteArray:
        """Flattens a batch of images.

        Args:
            x: (B, F, H, W) floating-point images.
            mask: (B, H, W) bool, True where a pixel is real.

        Returns:
            The byte array, with content first, then position.

        Raises:
            ValueError: The rank, channels, type or size does not fit, the batch is empty, or a real pixel is NaN.
        """
        self._check(x, mask)
        if mask is not None:
            x = torch.where(mask[:, None], x, 0)
        check_finite(x, name="The image batch")
        self.config.grid((x.shape[2], x.shape[3]))  # refuses what cannot be cut
        sees_mask = isinstance(self.features, (DownsamplingConvolution, ConvStem))
        features_BCHW = self.features(x, mask) if sees_mask else self.features(x)
        grid = tuple(features_BCHW.shape[2:])
        values_BMC = rearrange(features_BCHW, "b c h w -> b (h w) c")
        if self.position is not None:
            position_MP = self.position_projection(self.position(grid, like=values_BMC))
            if self.config.combine == "add":
                values_BMC = values_BMC + position_MP
            else:
                values_BMC = beside(values_BMC, position_MP)
        return ByteArray(
            values=values_BMC,
            mask=None if mask is None else element_mask(mask, grid),
            grid=grid,
            num_content_channels=self.num_content_channels,
        )

    def targets(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the pixels that each element stands for, row by row, each with its channels.

        Args:
            x: As `forward`.
            mask: As `forward`.

        Raises:
            ValueError: As `forward`; or the image is no multiple of an element, or elements cover no whole pixels.
        """
        self._check(x, mask)
        side = self.config.element_side
        if side is None:
            return super().targets(x, mask)
        patch_grid(x.shape[2:], (side, side), what="The image", unit="pixels")
        if mask is not None:
            x = torch.where(mask[:, None], x, torch.nan)
        return rearrange(x, "b f (h p) (w q) -> b (h w) (p q f)", p=side, q=side)

    def from_targets(self, targets_BMV: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Returns the images (B, F, H, W) that have these targets."""
        side = self.config.element_side
        if side is None:
            return super().from_targets(targets_BMV, grid)
        rows, columns = grid
        return rearrange(
            targets_BMV,
            "b (h w) (p q f) -> b f (h p) (w q)",
            h=rows,
            w=columns,
            p=side,
            q=side,
        )

    def mask_without(self, hidden_BM: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor | None:
        """Hides the pixels of hidden elements from the convolutions, if there are any."""
        if self.config.features not in ("conv", "conv_stem"):
            return mask
        real_BHW = torch.ones_like(x[:, 0], dtype=torch.bool) if mask is None else mask
        return spread_mask(hidden_BM, self.config.grid((x.shape[2], x.shape[3])), real_BHW)

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        check_shape(
            x,
            ("batch", self.config.image_channels, "height", "width"),
            name="Images",
            advice="Channels come first.",
        )
        check_floating(
            x,
            name="Images",
            advice="Pixels are expected in [0, 1] or [-1, 1]: convert and scale them, for example with the model's "
            "image processor.",
        )
        check_mask(mask, (x.shape[0], *x.shape[2:]), x=x, name="images")


class SpaceToDepth(nn.Module):
    """Moves the pixels of each patch to channels: (B, F, H, W) -> (B, patch * patch * F, H / patch, W / patch)."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, x_BFHW: Tensor) -> Tensor:
        """Rearranges; the order of channels is that of the original release: row, column, image channel."""
        return rearrange(x_BFHW, "b f (h p) (w q) -> b (p q f) h w", p=self.patch_size, q=self.patch_size)


def _halved(size: int) -> int:
    return -(-size // 2)


def _features(config: ImageAdapter.Config) -> tuple[nn.Module, int]:
    if config.features == "pixels":
        return nn.Identity(), config.image_channels
    if config.features == "patches":
        return SpaceToDepth(config.patch_size), config.image_channels * config.patch_size**2
    if config.features == "conv1x1":
        width = 256 if config.feature_channels is None else config.feature_channels
        return nn.Conv2d(config.image_channels, width, kernel_size=1), width
    if config.features == "conv_stem":
        width = config.feature_channels or STEM_CHANNELS
        stem = ConvStem(
            config.image_channels,
            width,
            num_convolutions=config.num_convolutions,
            num_residual=config.num_residual_convolutions,
        )
        return stem, width
    width = 64 if config.feature_channels is None else config.feature_channels
    return DownsamplingConvolution(config.image_channels, width, padding=config.conv_padding), width


def _position(config: ImageAdapter.Config) -> tuple[Callable[..., Tensor] | None, int]:
    if config.position == "none":
        return None, 0
    grid = config.grid(config.size)
    if config.position == "learned":
        learned = LearnedPositionEncoding(
            grid=grid,
            num_channels=config.position_channels,
            resize="truncate" if config.position_extent == "nominal" else "interpolate",
        )
        return learned, learned.num_channels
    fourier = FourierPositionEncoding(
        num_bands=config.num_bands,
        max_resolution=config.max_resolution or grid,
        include_coordinates=config.include_coordinates,
        nominal_grid=grid if config.position_extent == "nominal" else None,
    )
    return fourier, fourier.num_channels
