"""Point clouds of any place, size and number of points to those that a model takes.

Shape legend: B batch, P points, A coordinates, C coordinates and further features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import check_finite, check_plain, check_positive
from perceiver_io.media.clouds import read_cloud
from perceiver_io.media.source import is_source
from perceiver_io.ragged import pad_ragged
from perceiver_io.registry import register_processor

__all__ = ["PointCloudProcessor"]


@register_processor("cloud")
@dataclass(frozen=True, kw_only=True)
class PointCloudProcessor(ComponentConfig):
    """Brings point clouds to one place and size, and leaves out points of those that have too many.

    Columns beyond the coordinates and features that are asked for are left out. Points may lie in one place, and all in
    one plane.

    Attributes:
        num_coordinates: A, the first columns.
        num_features: Columns that follow, such as normals or colours; they are left as they are.
        normalize: "unit-sphere" moves the mean of the points to 0 and scales them so that the farthest is at a
            distance of 1; if all lie in one place, they are only moved. "none" leaves the coordinates as they are.
        max_points: The most points that are kept: every so manyth in the order of the file, or a random choice where
            one is asked for. All are if None. Fewer are fine: they are never repeated.
    """

    num_coordinates: int = 3
    num_features: int = 0
    normalize: Literal["unit-sphere", "none"] = "unit-sphere"
    max_points: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "num_coordinates", "max_points")
        if self.num_features < 0:
            raise ValueError(f"PointCloudProcessor.num_features is {self.num_features}, expected 0 or more.")

    def prepare(self, value: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """Returns one cloud.

        Args:
            value: An array, a tensor or a list (points, columns); or a file: a path, bytes, or a mapping of `path` and
                `bytes`.
            generator: Draws the points that are kept; they are spread evenly over the cloud's order if None.

        Returns:
            (P, C) float32.

        Raises:
            ValueError: It is no cloud, has no points, too few columns, or values that are NaN or infinite.
        """
        points_PC = _checked(read_cloud(value) if is_source(value) else value)
        width = self.num_coordinates + self.num_features
        if points_PC.shape[1] < width:
            raise ValueError(
                f"The points of the cloud have {points_PC.shape[1]} columns, expected {self.num_coordinates} "
                f"coordinates and {self.num_features} features."
            )
        points_PC = points_PC[:, :width]
        if self.normalize == "unit-sphere":
            centred = points_PC[:, : self.num_coordinates]
            centred = centred - centred.mean(0)
            radius = centred.norm(dim=1).max()
            centred = centred / radius if radius > 0 else centred
            points_PC = torch.cat([centred, points_PC[:, self.num_coordinates :]], dim=1)
        kept_PC = points_PC[self.kept(len(points_PC), generator)].float()
        check_finite(kept_PC, name="The cloud")
        return kept_PC

    def collate(self, samples: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """Makes a batch (B, P, C) of samples, padded with 0, and its mask (B, P)."""
        return pad_ragged(samples)

    def kept(self, num_points: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns the indices of the points that are kept of a cloud of so many, in order.

        Args:
            num_points: How many it has.
            generator: As `prepare`.
        """
        if self.max_points is None or num_points <= self.max_points:
            return torch.arange(num_points)
        if generator is None:
            return torch.arange(self.max_points) * num_points // self.max_points
        return torch.randperm(num_points, generator=generator)[: self.max_points].sort().values


def _checked(points: Any) -> Tensor:
    """Returns points as (P, columns) float64, in which coordinates far from 0 keep their digits."""
    if not isinstance(points, Tensor):
        try:
            points = torch.from_numpy(np.array(points))
        except (TypeError, ValueError) as error:
            raise ValueError(f"Got {type(points).__name__}, expected a point cloud: {error}.") from error
    check_plain(points, name="The cloud", device=None)
    if points.ndim != 2 or points.is_complex() or points.dtype == torch.bool:
        raise ValueError(
            f"The cloud is {points.dtype} {tuple(points.shape)}, expected real numbers (points, columns)."
        )
    if not len(points):
        raise ValueError("The cloud has no points, expected one or more. Leave it out.")
    points = points.detach().cpu().double()
    if not points.isfinite().all():
        place = int((~points.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"Point {place} of the cloud is NaN or infinite. Repair it, or leave it out.")
    return points
