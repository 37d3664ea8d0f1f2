"""Solids without a Perceiver."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from perceiver_io.adapters.cloud_processor import PointCloudProcessor

TASK = "point-cloud-classification"
DATASET = "solids"
NETWORK = "PointNet"
EPOCHS = 40
LEARNING_RATE = 2e-3

_CELLS = 6
_PROCESSOR = PointCloudProcessor()

Rows = Sequence[Mapping[str, Any]]


def features(rows: Rows) -> np.ndarray[Any, Any]:
    """Returns which part of a cloud's points lies in each cell of its unit cube, (N, F)."""
    clouds = [_PROCESSOR.prepare(row["cloud"]).numpy() for row in rows]
    counts = [np.histogramdd(cloud, bins=_CELLS, range=[(-1, 1)] * 3)[0] / len(cloud) for cloud in clouds]
    return np.stack(counts).reshape(len(rows), -1)


def simple() -> dict[str, tuple[Any, Any]]:
    """Returns the simple baseline; logistic regression on the same counts is worse."""
    return {"nearest neighbours on 6x6x6 counts of points": (features, KNeighborsClassifier(5))}


def batch(rows: Rows) -> tuple[Tensor, Tensor]:
    """Returns points (B, P, 3) and their mask (B, P)."""
    points, mask = _PROCESSOR.collate([_PROCESSOR.prepare(row["cloud"]) for row in rows])
    return points, torch.ones(points.shape[:2], dtype=torch.bool) if mask is None else mask


class PointNet(nn.Module):
    """Qi et al., 2017, without its alignment networks; training clouds are turned about the vertical."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.points = nn.Sequential(
            *(nn.Linear(3, 64), nn.LayerNorm(64), nn.ReLU()),
            *(nn.Linear(64, 128), nn.LayerNorm(128), nn.ReLU()),
            *(nn.Linear(128, 640), nn.LayerNorm(640)),
        )
        self.head = nn.Sequential(
            *(nn.Linear(640, 288), nn.LayerNorm(288), nn.ReLU(), nn.Dropout(0.1)),
            nn.Linear(288, num_classes),
        )

    def forward(self, points: Tensor, mask: Tensor) -> Tensor:
        """(B, P, 3) and (B, P) -> (B, K)."""
        if self.training:
            points = points @ turns(len(points)) + 0.01 * torch.randn_like(points)
        hidden = self.points(points).masked_fill(~mask[..., None], -math.inf)
        output: Tensor = self.head(hidden.amax(1))
        return output


def network(num_classes: int) -> nn.Module:
    """Returns a PointNet of 280,000 parameters."""
    return PointNet(num_classes)


def turns(number: int) -> Tensor:
    """Returns so many turns about the vertical, (B, 3, 3)."""
    angle = 2 * math.pi * torch.rand(number)
    turns = torch.eye(3).repeat(number, 1, 1)
    turns[:, 0, 0] = turns[:, 1, 1] = angle.cos()
    turns[:, 0, 1], turns[:, 1, 0] = -angle.sin(), angle.sin()
    return turns
