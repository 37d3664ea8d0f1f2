"""The adapter. Shape legend: B batch, M points, C channels."""

from dataclasses import dataclass

import torch
from torch import Tensor

import perceiver_io as pio
from perceiver_io import input_tools as tools
from perceiver_io.position import fourier_features


class LidarAdapter(pio.InputAdapter):
    """Turns sweeps, (B, M, 4) of x, y, z in metres from the sensor and the intensity, into sets of M elements."""

    @dataclass(frozen=True, kw_only=True)
    class Config(pio.ComponentConfig):
        """How far the sensor sees, in metres, and how finely places are told apart along each axis."""

        max_range: float = 20.0
        num_bands: int = 8
        resolution: int = 40

        def __post_init__(self) -> None:
            super().__post_init__()
            tools.check_positive(self, "max_range", "num_bands", "resolution")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.num_content_channels = 2
        self.num_channels = 2 + 3 * (2 * config.num_bands + 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> pio.ByteArray:
        """Makes an element of each point; the mask is (B, M), True where there is one."""
        tools.check_shape(x, ("batch", "points", 4), name="Sweeps", advice="Give x, y, z and the intensity.")
        tools.check_floating(x, name="Sweeps", advice="Convert them with .float().")
        tools.check_mask(mask, x.shape[:2], x=x, name="sweeps")
        x = x if mask is None else torch.where(mask[..., None], x, 0)
        tools.check_finite(x, name="The batch of sweeps")
        c, place_BM3 = self.config, x[..., :3] / self.config.max_range
        resolution = (c.resolution,) * 3
        place_BMC = fourier_features(place_BM3, num_bands=c.num_bands, max_resolution=resolution)
        content_BM2 = x[..., [3, 2]]  # the intensity, and how high above or below the sensor
        return pio.ByteArray(values=tools.beside(content_BM2, place_BMC), mask=mask, num_content_channels=2)
