"""Point clouds as tasks see them: any number of points, of any place, size and, if so set, attitude.

Shape legend: P points, A coordinates, C coordinates and further features.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from perceiver_io.adapters.cloud_processor import PointCloudProcessor
from perceiver_io.adapters.point_cloud import PointCloudAdapter
from perceiver_io.component import ComponentConfig
from perceiver_io.data import Content, file_feature
from perceiver_io.extras import require
from perceiver_io.input_tools import check_positive
from perceiver_io.media.clouds import cloud_fault, cloud_suffixes, read_cloud
from perceiver_io.media.source import is_source
from perceiver_io.pictures.seen import Seen
from perceiver_io.pictures.seen_points import SeenPoints
from perceiver_io.tasks.modalities.modality import Modality
from perceiver_io.tasks.modalities.variation import check_fractions, uniform

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["CLOUD", "CloudModality", "CloudSettings"]

# Of columns that hold paths, or what is in files.
_FILE_TYPES = ("string", "large_string", "binary", "large_binary")


@dataclass(frozen=True, kw_only=True)
class CloudSettings(ComponentConfig):
    """What a recipe says of point clouds.

    Attributes:
        num_coordinates: Columns that say where a point lies, the first.
        num_features: Columns that follow and are read too, such as normals or colours.
        max_points: Clouds of more points are thinned out: at random in training, evenly otherwise.
        normalize: "unit-sphere" brings all clouds to one place and size; "none" leaves them where they are.
        num_bands: Frequencies of the Fourier positions, along each axis.
        max_resolution: Resolution along each axis whose Nyquist frequency is the highest band; twice `num_bands` if
            None.
        rotation: How clouds are turned in training: "none", "upright" (about the third axis), or "any" way. Features
            are not turned with them.
        scaling: Largest change of size in training: 0.1 is from 0.9 to 1.1 times the size.
        jitter: Standard deviation, in training, of the noise of each coordinate.
        drop_points: Largest part of the points that is left out in training.
    """

    num_coordinates: int = 3
    num_features: int = 0
    max_points: int = 1024
    normalize: Literal["unit-sphere", "none"] = "unit-sphere"
    num_bands: int = 16
    max_resolution: int | None = None
    rotation: Literal["none", "upright", "any"] = "upright"
    scaling: float = 0.1
    jitter: float = 0.01
    drop_points: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "num_coordinates", "max_points", "num_bands", "max_resolution")
        check_fractions(self, "scaling", "drop_points")
        if self.num_features < 0:
            raise ValueError(f"CloudSettings.num_features is {self.num_features}, expected 0 or more.")
        if not 0 <= self.jitter < math.inf:
            raise ValueError(f"CloudSettings.jitter is {self.jitter}, expected a deviation of 0 or more.")
        if self.rotation != "none" and self.num_coordinates not in (2, 3):
            raise ValueError(
                f"Clouds of {self.num_coordinates} coordinates cannot be turned, only those of 2 or 3: leave out "
                f"rotation={self.rotation!r}."
            )


def _typed(rows: Dataset, column: str) -> Dataset:
    """Paths, bytes of files and lists of points become what `file_feature` says."""
    datasets = require("datasets", extra="train")
    feature = rows.features[column]
    if isinstance(feature, dict):
        return rows.cast_column(column, file_feature())
    if isinstance(feature, datasets.Value) and feature.dtype not in _FILE_TYPES:
        raise TypeError(f"A column of {feature.dtype} holds no point clouds.")
    typed: Dataset = rows.map(
        lambda row: {column: _as_file(row[column])},
        features=datasets.Features({**rows.features, column: file_feature()}),
    )
    return typed


def _as_file(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return {"bytes": None, "path": value}
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    file = io.BytesIO()
    np.save(file, np.asarray(value, np.float32))
    return {"bytes": file.getvalue(), "path": None}


class CloudModality(Modality):
    """Point clouds."""

    name = "cloud"
    Settings = CloudSettings
    content = Content(
        column="cloud",
        noun="point clouds",
        feature=file_feature,
        suffixes=cloud_suffixes,
        fault=cloud_fault,
        decode=lambda value: read_cloud(value) if is_source(value) else value,
        stored=lambda path: {"bytes": None, "path": path},
        typed=_typed,
    )

    def processor(self, settings: CloudSettings, values: Iterable[Any]) -> PointCloudProcessor:
        """Returns a processor of the settings; the data decides nothing."""
        return PointCloudProcessor(
            num_coordinates=settings.num_coordinates,
            num_features=settings.num_features,
            normalize=settings.normalize,
            max_points=settings.max_points,
        )

    def adapter(self, settings: CloudSettings, processor: PointCloudProcessor) -> ComponentConfig:
        """Returns the adapter of clouds; what is not normalised is taken to lie between -1 and 1."""
        resolution = settings.max_resolution
        return PointCloudAdapter.Config(
            num_axes=processor.num_coordinates,
            num_features=processor.num_features,
            num_bands=settings.num_bands,
            max_resolution=None if resolution is None else (resolution,) * processor.num_coordinates,
        )

    def varied(self, value: Any, processor: PointCloudProcessor, settings: CloudSettings) -> Tensor:
        """Thins out, turns, scales and blurs a cloud, and leaves points out."""
        points_PC = processor.prepare(value, generator=torch.default_generator)
        part = 1 - uniform(0, settings.drop_points)
        kept = torch.randperm(len(points_PC))[: max(1, round(part * len(points_PC)))]
        points_PC = points_PC[kept.sort().values]
        at_PA, features_PF = points_PC.tensor_split([processor.num_coordinates], dim=1)
        if settings.rotation != "none":
            at_PA = at_PA @ _rotation(settings.rotation, processor.num_coordinates)
        at_PA = at_PA * (1 + uniform(-1, 1) * settings.scaling)
        at_PA = at_PA + torch.randn_like(at_PA) * settings.jitter
        return torch.cat([at_PA, features_PF], dim=1)

    def seen(self, value: Any, sample: Tensor, processor: PointCloudProcessor) -> Seen:
        """Returns the points."""
        return SeenPoints(coordinates=sample[:, : processor.num_coordinates].numpy())


CLOUD = CloudModality()


def _rotation(way: str, num_axes: int) -> Tensor:
    """Returns a rotation, each as probable as any other; "upright" ones leave the third axis as it is."""
    if way == "any" and num_axes == 3:
        basis, upper = torch.linalg.qr(torch.randn(3, 3))
        basis = basis * upper.diagonal().sign()
        return basis * torch.tensor([torch.linalg.det(basis).sign(), 1, 1])
    angle = torch.tensor(uniform(-math.pi, math.pi))
    turn = torch.eye(num_axes)
    turn[:2, :2] = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    return turn
