"""Pairs of frames: what surrounds each pixel in both of them, beside its 2-D position.

Shape legend: B batch, F image channels, H height, W width, I rows and J columns of a neighbourhood, C channels;
M elements, H x W of them unless convolutions make them fewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from perceiver_io.adapter import InputAdapter
from perceiver_io.adapters.block_matching import NUM_MATCHED, matched_motion
from perceiver_io.adapters.conv_stem import ConvStem, check_widths
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
)
from perceiver_io.layers import linear
from perceiver_io.position import FourierPositionEncoding, PositionExtent
from perceiver_io.registry import register_adapter

__all__ = ["FramePairAdapter", "neighbourhoods"]


@register_adapter("frame-pair")
class FramePairAdapter(InputAdapter):
    """Joins two frames (B, 2, F, H, W) pixel by pixel (Perceiver IO, section 4.2 and appendix on optical flow).

    An element is a pixel: a learned projection of its neighbourhood in the first and in the second frame, and its
    position. Or, unlike in the paper, convolutions look at both frames at once, and an element stands for several
    pixels; they may also be shown where blocks of pixels lie in the second frame, which is then refined. Frames may
    have any size, the same for both. A mask is (B, H, W), True where the pixel is real in both frames; masked pixels
    are set to zero before their neighbours look at them.

    Args:
        config: The settings.
    """

    argument_names = ("frames", "pixel_mask")

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the adapter.

        Attributes:
            size: Nominal height and width in pixels; fixes, by default, the resolution of the positions.
            image_channels: F.
            features: What the content of an element is: "neighbourhood", a projection of what surrounds a pixel in
                both frames, as published; "conv_stem", 3x3 convolutions of stride 2 over both frames side by side.
            neighbourhood: Side of a neighbourhood in pixels, odd. For "neighbourhood" only.
            feature_channels: Width of the features.
            num_convolutions: How many convolutions halve the frames: with 2, an element stands for 4x4 pixels. For
                "conv_stem" only.
            num_residual_convolutions: How many 3x3 convolutions follow these, residual and of stride 1. For "conv_stem"
                only.
            matching_radius: Blocks of the first frame are looked for in the second, over so many pixels of half the
                resolution along each axis; the motion that is found goes into the convolutions beside the pixels. 0:
                no such thing. For "conv_stem" only.
            num_bands: Frequencies per axis of the Fourier positions.
            max_resolution: Resolution per axis whose Nyquist frequency is the highest band; the nominal grid if None.
            include_coordinates: Whether positions begin with the raw coordinates.
            position_extent: What -1 to 1 covers: "input", each pair whatever its size, as published; "nominal", one of
                the nominal size. Then an element has the same position in pairs of any size, larger ones go on past
                1, and padding changes nothing.
        """

        size: tuple[int, int]
        image_channels: int = 3
        features: Literal["neighbourhood", "conv_stem"] = "neighbourhood"
        neighbourhood: int = 3
        feature_channels: int = 64
        num_convolutions: int = 2
        num_residual_convolutions: int = 0
        matching_radius: int = 0
        num_bands: int = 64
        max_resolution: tuple[int, int] | None = None
        include_coordinates: bool = True
        position_extent: PositionExtent = "input"

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(
                self,
                "size",
                "image_channels",
                "neighbourhood",
                "feature_channels",
                "num_convolutions",
                "num_bands",
                "max_resolution",
            )
            if self.neighbourhood % 2 == 0:
                raise ValueError(
                    f"FramePairAdapter.Config.neighbourhood must be odd, so that it has a middle, got "
                    f"{self.neighbourhood}."
                )
            for name in ("num_residual_convolutions", "matching_radius"):
                if getattr(self, name) < 0:
                    raise ValueError(
                        f"FramePairAdapter.Config.{name} must be at least 0, got {getattr(self, name)}."
                    )
            if self.features == "conv_stem":
                check_widths(self.feature_channels, num_convolutions=self.num_convolutions)
                if self.neighbourhood != 3:
                    raise ValueError(
                        f"neighbourhood {self.neighbourhood} goes with features='neighbourhood', got features="
                        f"{self.features!r}, whose convolutions are 3x3."
                    )
            elif self.num_convolutions != 2 or self.num_residual_convolutions or self.matching_radius:
                raise ValueError(
                    f"num_convolutions {self.num_convolutions}, num_residual_convolutions "
                    f"{self.num_residual_convolutions} and matching_radius {self.matching_radius} go with "
                    f"features='conv_stem', got features={self.features!r}."
                )

        def grid(self, size: tuple[int, int]) -> tuple[int, int]:
            """Returns the grid of elements of frames of this size."""
            rows, columns = size
            if self.features == "conv_stem":
                for _ in range(self.num_convolutions):
                    rows, columns = -(-rows // 2), -(-columns // 2)
            return rows, columns

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.projection: nn.Linear | None = None
        self.stem: ConvStem | None = None
        if config.features == "conv_stem":
            self.stem = ConvStem(
                2 * config.image_channels + (NUM_MATCHED if config.matching_radius else 0),
                config.feature_channels,
                num_convolutions=config.num_convolutions,
                num_residual=config.num_residual_convolutions,
            )
        else:
            window = 2 * config.neighbourhood**2 * config.image_channels
            self.projection = linear(window, config.feature_channels)
        grid = config.grid(config.size)
        self.position = FourierPositionEncoding(
            num_bands=config.num_bands,
            max_resolution=config.max_resolution or grid,
            include_coordinates=config.include_coordinates,
            nominal_grid=grid if config.position_extent == "nominal" else None,
        )
        self.depends_on_extent = config.position_extent == "input"
        self.num_content_channels = config.feature_channels
        self.num_channels = config.feature_channels + self.position.num_channels

    def forward(self, x: Tensor, mask: Tensor | None = None) -> ByteArray:
        """Flattens a batch of frame pairs.

        Args:
            x: (B, 2, F, H, W) floating-point frames, from -1 to 1 as published.
            mask: (B, H, W) bool, True where a pixel is real in both frames.

        Returns:
            The byte array, with features first, then position.

        Raises:
            ValueError: The rank, number of frames, channels or type does not fit, the batch is empty, or a real pixel
                is NaN.
        """
        check_shape(
            x,
            ("batch", 2, self.config.image_channels, "height", "width"),
            name="Frame pairs",
            advice="Make a pair of two frames of one size with torch.stack([first, second], dim=-4).",
        )
        check_floating(
            x, name="Frame pairs", advice="Pixels are expected in [-1, 1]: convert and scale them."
        )
        batch_size, _, _, height, width = x.shape
        check_mask(mask, (batch_size, height, width), x=x, name="frame pairs")
        if mask is not None:
            x = torch.where(mask[:, None, None], x, 0)
        check_finite(x, name="The batch of frame pairs")
        if self.stem is not None:
            seen_BCHW = x.flatten(1, 2)
            if radius := self.config.matching_radius:
                seen_BCHW = torch.cat(
                    [seen_BCHW, matched_motion(x[:, 0], x[:, 1], mask, radius=radius)], dim=1
                )
                if mask is not None:
                    seen_BCHW = torch.where(mask[:, None], seen_BCHW, 0)
            features_BCHW = self.stem(seen_BCHW, mask)
            grid = (features_BCHW.shape[2], features_BCHW.shape[3])
            features_BMC = rearrange(features_BCHW, "b c h w -> b (h w) c")
        else:
            assert self.projection is not None
            grid = (height, width)
            features_BMC = self.projection(neighbourhoods(x, self.config.neighbourhood))
        return ByteArray(
            values=beside(features_BMC, self.position(grid, like=features_BMC)),
            mask=None if mask is None else element_mask(mask, grid),
            grid=grid,
            num_content_channels=self.num_content_channels,
        )


def neighbourhoods(frames_BTFHW: Tensor, side: int) -> Tensor:
    """Collects what surrounds each pixel in every frame, with zeros outside.

    Args:
        frames_BTFHW: T frames each.
        side: Height and width of a neighbourhood, odd.

    Returns:
        (B, M, C) with C = T x side x side x F in the order of the original release, that is frame, row, column, image
        channel.
    """
    padded = nn.functional.pad(frames_BTFHW, [side // 2] * 4)
    windows_BTFHWIJ = padded.unfold(-2, side, 1).unfold(-2, side, 1)  # a view: nothing is copied yet
    return rearrange(windows_BTFHWIJ, "b t f h w i j -> b (h w) (t i j f)")
