from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

TASK = "tabular-classification"
DATASET = "breast-cancer"
NETWORK = "MLP"
EPOCHS = 60
LEARNING_RATE = 2e-3


def features(rows: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, Any]:
    return np.array([list(row["table"].values()) for row in rows], dtype=np.float32)


def simple() -> dict[str, tuple[Any, Any]]:
    return {
        "nearest neighbours": (features, KNeighborsClassifier(5)),
        "logistic regression": (features, make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))),
    }


def network(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm1d(30, affine=False),
        nn.Linear(30, 256),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(256, num_classes),
    )


def batch(rows: Sequence[Mapping[str, Any]]) -> Tensor:
    return torch.from_numpy(features(rows))
