"""Point clouds: where each point lies and what was measured there, beside Fourier features of its place.

Shape legend: B batch, P points, A axes, F features; M = P elements.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
)
from perceiver_io.position import FourierPositionEncoding
from perceiver_io.registry import register_adapter

__all__ = ["PointCloudAdapter"]


@register_adapter("point-cloud")
class PointCloudAdapter(InputAdapter):
    """Takes sets of points (B, P, A + F): coordinates, and features of each (Perceiver, section 4.3 on ModelNet40).

    The order of the points does not matter, and points may lie on each other. A mask is (B, P), True where a point is
    real, so that clouds of a batch may have different numbers of points.

    Args:
        config: The settings.
    """

    argument_names = ("points", "points_mask")

    @dataclass(frozen=True, kw_only=True)
    class Config(ComponentConfig):
        """Settings of the adapter.

        Attributes:
            num_axes: A.
            num_features: F, such as 3 for colours or normals.
            scale: Coordinates from -scale to scale become -1 to 1; 1 if None. Points beyond are taken too.
            minimum: What becomes -1, for each axis, where `scale` does not say it.
            maximum: What becomes 1.
            num_bands: Frequencies per axis of the Fourier positions.
            max_resolution: Resolution per axis whose Nyquist frequency is the highest band; if None, twice `num_bands`,
                which makes the frequencies whole numbers.
        """

        num_axes: int = 3
        num_features: int = 0
        scale: float | None = None
        minimum: tuple[float, ...] | None = None
        maximum: tuple[float, ...] | None = None
        num_bands: int = 16
        max_resolution: tuple[int, ...] | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            check_positive(self, "num_axes", "num_bands", "max_resolution")
            name = type(self).__qualname__
            if self.num_features < 0:
                raise ValueError(f"{name}.num_features must be at least 0, got {self.num_features}.")
            if self.scale is not None and self.scale <= 0:
                raise ValueError(f"{name}.scale must be above 0, got {self.scale}.")
            if (self.minimum is None) != (self.maximum is None):
                raise ValueError(f"{name} takes minimum and maximum together, got only one of them.")
            if self.minimum is not None and self.scale is not None:
                raise ValueError(f"{name} takes a scale, or minimum and maximum, got both.")
            for field in ("minimum", "maximum", "max_resolution"):
                value = getattr(self, field)
                if value is not None and len(value) != self.num_axes:
                    raise ValueError(
                        f"{name}.{field} must have a number for each of {self.num_axes} axes, got {value}."
                    )
            if any(low >= high for low, high in zip(self.minimum or (), self.maximum or (), strict=True)):
                raise ValueError(
                    f"{name}.minimum must be below maximum on each axis, got {self.minimum} and {self.maximum}."
                )

        @property
        def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
            """What becomes -1 and 1, for each axis."""
            if self.minimum is not None and self.maximum is not None:
                return self.minimum, self.maximum
            scale = 1.0 if self.scale is None else self.scale
            return (-scale,) * self.num_axes, (scale,) * self.num_axes

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.position = FourierPositionEncoding(
            num_bands=config.num_bands,
            max_resolution=config.max_resolution or (2 * config.num_bands,) * config.num_axes,
            include_coordinates=False,  # they are content
        )
        self.num_content_channels = config.num_axes + config.num_features
        self.num_channels = self.num_content_channels + self.position.num_channels
        self.num_target_channels = config.num_features or None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> ByteArray:
        """Takes a batch of point clouds.

        Args:
            x: (B, P, A + F) floating-point points, coordinates first.
            mask: (B, P) bool, True where a point is real.

        Returns:
            The byte array, a set, with scaled coordinates and features first, then sines and cosines.

        Raises:
            ValueError: The rank, channels or type does not fit, a cloud has no points, or a real value is NaN.
        """
        axes = self.config.num_axes
        self._check(x, mask)
        if mask is not None:
            x = torch.where(mask[..., None], x, 0)
        check_finite(x, name="The batch of point clouds")
        place_BPA = x[..., :axes].to(torch.promote_types(x.dtype, torch.float32))
        low_A, high_A = (
            torch.tensor(bound, dtype=place_BPA.dtype, device=place_BPA.device)
            for bound in self.config.bounds
        )
        scaled_BPA = (2 * place_BPA - low_A - high_A) / (high_A - low_A)
        coordinates_BPA = scaled_BPA.to(x.dtype)
        check_finite(
            coordinates_BPA, name="The batch of scaled coordinates", advice="The scale is too small."
        )
        content_BPC = torch.cat([coordinates_BPA, x[..., axes:]], dim=-1)
        return ByteArray(
            values=beside(content_BPC, self.position.at_coordinates(scaled_BPA, like=x)),
            mask=mask,
            num_content_channels=self.num_content_channels,
        )

    def targets(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the features of each point: where it lies is what a hidden one is asked for by.

        Args:
            x: As `forward`.
            mask: As `forward`.

        Raises:
            ValueError: As `forward`; or points have no features.
        """
        if not self.config.num_features:
            raise ValueError(
                "Points without features have nothing to reconstruct: where one lies is all that it holds, and what it "
                "would be asked for by."
            )
        self._check(x, mask)
        features_BPF = x[..., self.config.num_axes :]
        return features_BPF if mask is None else torch.where(mask[..., None], features_BPF, torch.nan)

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        axes = self.config.num_axes
        check_shape(
            x,
            ("batch", "points", self.num_content_channels),
            name="Point clouds",
            advice=f"A point is {axes} coordinates and {self.config.num_features} features.",
        )
        check_floating(x, name="Point clouds", advice="Call `.float()` on them.")
        check_mask(mask, x.shape[:2], x=x, name="point clouds")
