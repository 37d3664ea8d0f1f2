"""Audio: samples of a waveform in patches, or convolved, beside positions in time.

Shape legend: B batch, F channels of sound, S samples, J samples a patch, C channels of the byte array; M = S / J
elements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from perceiver_io.adapter import InputAdapter
from perceiver_io.adapters.sample_convolutions import SampleConvolutions
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

__all__ = ["AudioAdapter"]


@register_adapter("audio")
class AudioAdapter(InputAdapter):
    """Cuts sound in patches of samples (Perceiver IO, section 4.3 on multimodal autoencoding), or convolves it.

    Mono sound is (B, S), sound of several channels (B, F, S). A mask is (B, S), True where a sample is real; masked
    samples are set to zero, and an element is real if any of its samples is.

    Args:
        config: The settings.
    """

    argument_names = ("input_values", "attention_mask")

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the adapter.

        Attributes:
            num_samples: Nominal length in samples; fixes, by default, the resolution of the positions. Sounds may
                have other lengths at run time, all multiples of a patch.
            audio_channels: F. Sounds of one channel have no axis for it.
            samples_per_patch: J.
            features: What the content of an element is: "patches", its samples; "conv", what strided convolutions make
                of them and of their neighbours, one for each prime factor of J.
            feature_channels: Width of "conv" features; 64 if None.
            num_bands: Frequencies of the Fourier positions.
            max_resolution: Resolution whose Nyquist frequency is the highest band; `num_samples` if None. As
                published, that is the number of samples and not of patches, whose positions are thus finer than need
                be.
            include_coordinates: Whether positions begin with the raw coordinate.
            scale: Factor on the samples. Recordings are mostly far more quiet than 1, and positions are not: with one
                over their deviation a model sees both alike from the start.
            position_extent: What -1 to 1 covers: "input", each sound whatever its size, as published; "nominal", one of
                the nominal size. Then an element has the same position in sounds of any size, larger ones go on past
                1, and padding changes nothing.
        """

        num_samples: int
        audio_channels: int = 1
        samples_per_patch: int = 16
        features: Literal["patches", "conv"] = "patches"
        feature_channels: int | None = None
        num_bands: int = 192
        max_resolution: int | None = None
        include_coordinates: bool = True
        scale: float = 1.0
        position_extent: PositionExtent = "input"

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(self, "num_samples", "audio_channels", "samples_per_patch")
            if not 0 < self.scale < math.inf:
                raise ValueError(f"AudioAdapter.Config.scale is {self.scale}, expected a number above zero.")
            check_positive(self, "num_bands", "max_resolution", "feature_channels")
            if self.features != "conv" and self.feature_channels is not None:
                raise ValueError(
                    f"feature_channels goes with features='conv', got features={self.features!r}."
                )
            self.grid(self.num_samples)

        def grid(self, num_samples: int) -> tuple[int, ...]:
            """Returns the grid of elements of a sound of this length.

            Raises:
                ValueError: The length is shorter than a patch, or no multiple of it.
            """
            return patch_grid((num_samples,), (self.samples_per_patch,), what="The sound", unit="samples")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.position = FourierPositionEncoding(
            num_bands=config.num_bands,
            max_resolution=(config.max_resolution or config.num_samples,),
            include_coordinates=config.include_coordinates,
            nominal_grid=config.grid(config.num_samples) if config.position_extent == "nominal" else None,
        )
        self.convolutions = None
        self.num_content_channels = config.samples_per_patch * config.audio_channels
        if config.features == "conv":
            self.num_content_channels = config.feature_channels or 64
            self.convolutions = SampleConvolutions(
                config.audio_channels,
                self.num_content_channels,
                samples_per_element=config.samples_per_patch,
            )
        self.num_channels = self.num_content_channels + self.position.num_channels
        self.num_target_channels = config.samples_per_patch * config.audio_channels
        self.depends_on_extent = config.position_extent == "input"

    def forward(self, x: Tensor, mask: Tensor | None = None) -> ByteArray:
        """Flattens a batch of sounds.

        Args:
            x: (B, S) floating-point samples, usually from -1 to 1; (B, F, S) where F is more than 1.
            mask: (B, S) bool, True where a sample is real.

        Returns:
            The byte array, with the samples of a patch first (sample by sample, each with its channels), or what the
            convolutions make of it; then its position.

        Raises:
            ValueError: The rank, channels, type or length does not fit, the batch is empty, or a real sample is NaN.
        """
        x_BFS = self._checked(x, mask)
        grid = self.config.grid(x_BFS.shape[2])
        if mask is not None:
            x_BFS = torch.where(mask[:, None], x_BFS, 0)
        if self.config.scale != 1:
            x_BFS = x_BFS * self.config.scale
        check_finite(x_BFS, name="The batch of sounds")
        if self.convolutions is None:
            content_BMC = rearrange(x_BFS, "b f (m j) -> b m (j f)", j=self.config.samples_per_patch)
        else:
            content_BMC = self.convolutions(x_BFS, mask)
        return ByteArray(
            values=beside(content_BMC, self.position(grid, like=x)),
            mask=None if mask is None else element_mask(mask, grid),
            grid=grid,
            num_content_channels=self.num_content_channels,
        )

    def targets(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the samples that each element stands for, each with its channels.

        Args:
            x: As `forward`.
            mask: As `forward`.

        Raises:
            ValueError: As `forward`.
        """
        x_BFS = self._checked(x, mask)
        self.config.grid(x_BFS.shape[2])
        if mask is not None:
            x_BFS = torch.where(mask[:, None], x_BFS, torch.nan)
        return rearrange(x_BFS, "b f (m j) -> b m (j f)", j=self.config.samples_per_patch)

    def from_targets(self, targets_BMV: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Returns the sounds (B, S), or (B, F, S), that have these targets."""
        x_BFS = rearrange(targets_BMV, "b m (j f) -> b f (m j)", j=self.config.samples_per_patch)
        return x_BFS[:, 0] if self.config.audio_channels == 1 else x_BFS

    def mask_without(self, hidden_BM: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor | None:
        """Hides the samples of hidden elements from the convolutions, if there are any."""
        if self.convolutions is None:
            return mask
        real_BS = torch.ones_like(x if x.ndim == 2 else x[:, 0], dtype=torch.bool)
        return spread_mask(hidden_BM, self.config.grid(x.shape[-1]), real_BS if mask is None else mask)

    def _checked(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, F, S), after checks of all but the values."""
        channels = self.config.audio_channels
        if channels == 1:
            advice = "Mix several channels to one, and leave out their axis."
            check_shape(x, ("batch", "samples"), name="Sounds", advice=advice)
        else:
            advice = "Channels come before the samples."
            check_shape(x, ("batch", channels, "samples"), name="Sounds", advice=advice)
        check_floating(
            x, name="Sounds", advice="Samples are expected in [-1, 1]: divide 16-bit ones by 32768."
        )
        x_BFS = x if x.ndim == 3 else x[:, None]
        check_mask(mask, (x_BFS.shape[0], x_BFS.shape[2]), x=x, name="sounds")
        return x_BFS
