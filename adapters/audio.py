"""Audio: samples of a waveform in patches, beside positions in time.

Shape legend: B batch, S samples, J samples a patch, C channels of the byte array; M = S / J elements.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

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
)
from perceiver_io.position import FourierPositionEncoding
from perceiver_io.registry import register_adapter

__all__ = ["AudioAdapter"]


@register_adapter("audio")
class AudioAdapter(InputAdapter):
    """Cuts mono sound (B, S) in patches of samples (Perceiver IO, section 4.3 on multimodal autoencoding).

    Fourier positions follow the length of the sound. A mask is (B, S), True where a sample is real; masked samples
    are set to zero, and an element is real if any of its samples is.

    Args:
        config: The settings.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the adapter.

        Attributes:
            num_samples: Nominal length in samples; fixes, by default, the resolution of the positions. Sounds may
                have other lengths at run time, all multiples of a patch.
            samples_per_patch: J.
            num_bands: Frequencies of the Fourier positions.
            max_resolution: Resolution whose Nyquist frequency is the highest band; `num_samples` if None. As
                published, that is the number of samples and not of patches, whose positions are thus finer than need
                be.
            include_coordinates: Whether positions begin with the raw coordinate.
        """

        num_samples: int
        samples_per_patch: int = 16
        num_bands: int = 192
        max_resolution: int | None = None
        include_coordinates: bool = True

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(self, "num_samples", "samples_per_patch", "num_bands", "max_resolution")
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
        )
        self.num_content_channels = config.samples_per_patch
        self.num_channels = config.samples_per_patch + self.position.num_channels

    def forward(self, x: Tensor, mask: Tensor | None = None) -> ByteArray:
        """Flattens a batch of sounds.

        Args:
            x: (B, S) floating-point samples, usually from -1 to 1.
            mask: (B, S) bool, True where a sample is real.

        Returns:
            The byte array: the samples of a patch first, then its position.

        Raises:
            ValueError: The rank, type or length does not fit, the batch is empty, or a real sample is NaN.
        """
        check_shape(
            x,
            ("batch", "samples"),
            name="Sounds",
            advice="Mix several channels to one, and leave out their axis.",
        )
        check_floating(
            x, name="Sounds", advice="Samples are expected in [-1, 1]: divide 16-bit ones by 32768."
        )
        check_mask(mask, x.shape, x=x, name="sounds")
        grid = self.config.grid(x.shape[1])
        if mask is not None:
            x = torch.where(mask, x, 0)
        check_finite(x, name="The batch of sounds")
        patches_BMJ = rearrange(x, "b (m j) -> b m j", j=self.config.samples_per_patch)
        return ByteArray(
            values=beside(patches_BMJ, self.position(grid, like=x)),
            mask=None if mask is None else element_mask(mask, grid),
            grid=grid,
            num_content_channels=self.num_content_channels,
        )
