"""Instruments: logistic regression on mel pictures, and a small CNN on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from perceiver_io.adapters.audio_processor import PerceiverIOFeatureExtractor
from perceiver_io.ragged import pad_ragged

TASK = "audio-classification"
DATASET = "instruments"
NETWORK = "CNN on mel pictures"
EPOCHS = 15
LEARNING_RATE = 2e-3

_FRAMES, _AVERAGED = 98, 7  # a second, and frames that become one
_MEL = PerceiverIOFeatureExtractor(
    sampling_rate=8000, features="log-mel", num_mel_bands=40, normalize="standard"
)


def features(rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """A mel picture of a second, seven frames averaged to one."""
    pictures = []
    for row in rows:
        frames = _MEL.prepare(row["audio"])[:_FRAMES]
        padded = torch.nn.functional.pad(frames, (0, 0, 0, _FRAMES - len(frames)))
        pictures.append(padded.unflatten(0, (-1, _AVERAGED)).mean(1).flatten())
    return torch.stack(pictures).numpy()


def simple() -> dict[str, tuple[Any, Any]]:
    return {
        "logistic regression on mel pictures": (
            features,
            make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=300)),
        )
    }


def batch(rows: Sequence[Mapping[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    frames, mask = pad_ragged([_MEL.prepare(row["audio"]) for row in rows], multiples=(4,))
    return frames, torch.ones(frames.shape[:2], dtype=torch.bool) if mask is None else mask


class MelCNN(torch.nn.Module):
    """Three convolutions of stride 2, then the mean over all that is real."""

    def __init__(self, num_classes: int, width: int = 48) -> None:
        super().__init__()
        widths = [1, width, 2 * width, 4 * width]
        self.layers = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.Conv2d(before, after, 3, stride=2, padding=1),
                torch.nn.BatchNorm2d(after),
                torch.nn.ReLU(),
                torch.nn.Conv2d(after, after, 3, padding=1, groups=after),
                torch.nn.ReLU(),
            )
            for before, after in pairwise(widths)
        )
        self.hidden = torch.nn.Sequential(
            torch.nn.Linear(widths[-1], 768), torch.nn.ReLU(), torch.nn.Dropout(0.1)
        )
        self.output = torch.nn.Linear(768, num_classes)

    def vectors(self, frames_BTF: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        x = frames_BTF[:, None]
        for layer in self.layers:
            x = layer(x)
        real = torch.nn.functional.adaptive_max_pool1d(mask_BT.float()[:, None], x.shape[2])[:, :, :, None]
        pooled = (x * real).sum((2, 3)) / (real.sum((2, 3)).clamp(min=1) * x.shape[3])
        vectors: torch.Tensor = self.hidden(pooled)
        return vectors

    def forward(self, frames_BTF: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.vectors(frames_BTF, mask_BT))
        return logits


def network(num_classes: int) -> torch.nn.Module:
    return MelCNN(num_classes)
