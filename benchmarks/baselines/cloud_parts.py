"""Parts of assembled objects without a Perceiver: each point by itself, and a PointNet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor, nn

from baselines.cloud import turns
from perceiver_io.adapters.cloud_processor import PointCloudProcessor
from perceiver_io.ragged import pad_ragged

TASK = "point-cloud-segmentation"
DATASET = "assembled"
METRIC = "mean_iou"
NETWORK = "PointNet"
EPOCHS = 12  # about as many seconds as the Perceiver
LEARNING_RATE = 2e-3

_PROCESSOR = PointCloudProcessor()
_NEIGHBOURS = 16

Rows = Sequence[Mapping[str, Any]]


def labels(rows: Rows) -> list[Tensor]:
    """Returns the class of each point, by cloud."""
    return [row["labels"] for row in rows]


def places(rows: Rows) -> np.ndarray[Any, Any]:
    """Returns where each point of each cloud lies, in the cloud's unit sphere: (points, 3)."""
    return np.concatenate([_PROCESSOR.prepare(row["cloud"]).numpy() for row in rows])


def features(rows: Rows) -> np.ndarray[Any, Any]:
    """Returns where each point lies, how far from the middle, and how its 16 neighbours lie: (points, 11).

    Of the neighbours: the deviations along their three principal axes, how steep the first and the last of these are,
    and how far the point is from their mean.
    """
    return np.concatenate([_features(_PROCESSOR.prepare(row["cloud"]).numpy()) for row in rows])


def simple() -> dict[str, tuple[Any, Any]]:
    forest = RandomForestClassifier(100, min_samples_leaf=2, max_samples=0.25, random_state=0)
    return {
        "nearest neighbours on places": (places, KNeighborsClassifier(15)),
        "random forest on places and neighbourhoods": (features, forest),
    }


def batch(rows: Rows) -> tuple[Tensor, Tensor]:
    """Returns points (B, P, 3) and their mask (B, P)."""
    points, mask = pad_ragged([_PROCESSOR.prepare(row["cloud"]) for row in rows])
    return points, torch.ones(points.shape[:2], dtype=torch.bool) if mask is None else mask


class PointNet(nn.Module):
    """The segmentation network of Qi et al., 2017, without its alignment networks."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.points = nn.Sequential(
            *(nn.Linear(3, 64), nn.LayerNorm(64), nn.ReLU()),
            *(nn.Linear(64, 128), nn.LayerNorm(128), nn.ReLU()),
        )
        self.whole = nn.Sequential(nn.Linear(128, 512), nn.LayerNorm(512))
        # Of a point's own features and of the whole cloud's, side by side; the latter once a cloud.
        self.own, self.common = nn.Linear(128, 256), nn.Linear(512, 256)
        self.head = nn.Sequential(
            *(nn.LayerNorm(256), nn.ReLU(), nn.Dropout(0.1)),
            *(nn.Linear(256, 256), nn.LayerNorm(256), nn.ReLU()),
            nn.Linear(256, num_classes),
        )

    def forward(self, points: Tensor, mask: Tensor) -> Tensor:
        """(B, P, 3) and (B, P) -> (B, K, P)."""
        if self.training:
            points = points @ turns(len(points)) + 0.01 * torch.randn_like(points)
        hidden = self.points(points)
        whole = self.whole(hidden).masked_fill(~mask[..., None], -math.inf).amax(1)
        output: Tensor = self.head(self.own(hidden) + self.common(whole)[:, None])
        return output.transpose(1, 2)


def network(num_classes: int) -> nn.Module:
    return PointNet(num_classes)


def _features(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    near = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(points).kneighbors(points, return_distance=False)
    offsets = points[near] - points[near].mean(1, keepdims=True)
    values, axes = np.linalg.eigh(np.einsum("pka,pkb->pab", offsets, offsets) / _NEIGHBOURS)
    deviations = np.sqrt(np.maximum(values, 0))
    steep = np.abs(axes[:, 2, [0, 2]])
    off = np.linalg.norm(points - points[near].mean(1), axis=1)
    flat, far = np.linalg.norm(points[:, :2], axis=1), np.linalg.norm(points, axis=1)
    return np.column_stack([points, flat, far, deviations, steep, off])
