from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

TASK = "text-classification"
DATASET = "stdlib-packages"
NETWORK = "byte CNN"
EPOCHS = 10
LEARNING_RATE = 2e-3

_LENGTH = 512


def ngrams(rows: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, Any]:
    """Square roots of the counts of 1 to 4 characters in a row."""
    hashed = HashingVectorizer(
        analyzer="char",
        ngram_range=(1, 4),
        n_features=2**13,
        alternate_sign=False,
        norm=None,
        lowercase=False,
    )
    return _normalized(hashed.transform([row["text"] for row in rows]).toarray())


def counts(rows: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, Any]:
    """Square roots of how often each byte occurs."""
    return _normalized(np.stack([np.bincount([*row["text"].encode()], minlength=256) for row in rows]))


def _normalized(counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    roots = np.sqrt(counts.astype(np.float32))
    return roots / np.linalg.norm(roots, axis=1, keepdims=True)


def simple() -> dict[str, tuple[Any, Any]]:
    return {
        "logistic regression on counts of bytes": (counts, LogisticRegression(C=30, max_iter=300)),
        "the same on hashed n-grams of 1 to 4": (ngrams, LogisticRegression(C=30, max_iter=300)),
    }


class ByteCNN(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(257, 48, padding_idx=256)
        self.convolutions = nn.Sequential(
            nn.Conv1d(48, 128, 7, padding=3),
            nn.ReLU(),
            nn.BatchNorm1d(128),
            nn.Conv1d(128, 128, 7, padding=3),
            nn.ReLU(),
            nn.BatchNorm1d(128),
        )
        self.output = nn.Sequential(nn.Dropout(0.5), nn.Linear(256, num_classes))

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BCT = self.convolutions(self.embedding(ids_BT).transpose(1, 2))
        return self.output(torch.cat([x_BCT.amax(2), x_BCT.mean(2)], dim=1))


def network(num_classes: int) -> nn.Module:
    return ByteCNN(num_classes)


def batch(rows: Sequence[Mapping[str, Any]]) -> Tensor:
    ids = torch.full((len(rows), _LENGTH), 256)
    for index, row in enumerate(rows):
        content = list(row["text"].encode()[:_LENGTH])
        ids[index, : len(content)] = torch.tensor(content)
    return ids
