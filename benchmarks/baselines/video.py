"""Moving digits without a Perceiver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

TASK = "video-classification"
DATASET = "moving-digits"
NETWORK = "3-D CNN"
EPOCHS = 25
LEARNING_RATE = 2e-3

_FRAMES = 8

Rows = Sequence[Mapping[str, Any]]


def features(rows: Rows) -> np.ndarray[Any, Any]:
    """Returns the pixels of eight frames, (N, F); frames that are missing are black."""
    pixels = np.zeros((len(rows), _FRAMES, *rows[0]["video"].shape[1:]), np.float32)
    for place, row in zip(pixels, rows, strict=True):
        place[: len(row["video"])] = row["video"] / 255
    return pixels.reshape(len(rows), -1)


def simple() -> dict[str, tuple[Any, Any]]:
    """Returns the simple baseline; logistic regression on pixels gets next to nothing right."""
    return {"nearest neighbours on pixels": (features, KNeighborsClassifier(5))}


def batch(rows: Rows) -> Tensor:
    """Returns (B, 1, T, H, W)."""
    return torch.from_numpy(features(rows)).view(len(rows), 1, _FRAMES, *rows[0]["video"].shape[1:])


class CNN(nn.Module):
    """Three convolutions in space and time; training videos are shifted round as digits move round."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        widths = (1, 32, 64, 112)
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            stride = (1 if index == 0 else 2, 2, 2)
            layers += [
                nn.Conv3d(before, after, 3, stride=stride, padding=1),
                nn.BatchNorm3d(after),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(0.1))
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T, H, W) -> (B, K)."""
        if self.training:
            x = x.roll(torch.randint(0, x.shape[-1], (2,)).tolist(), dims=(-2, -1))
        output: Tensor = self.head(self.layers(x))
        return output


def network(num_classes: int) -> nn.Module:
    """Returns a CNN of 260,000 parameters."""
    return CNN(num_classes)
