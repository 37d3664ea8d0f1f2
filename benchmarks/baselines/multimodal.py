"""Digits seen and heard: logistic regression on both side by side, and two small CNNs whose outputs are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from baselines.audio import MelCNN
from perceiver_io.adapters.audio_processor import PerceiverIOFeatureExtractor
from perceiver_io.ragged import pad_ragged

TASK = "multimodal-classification"
DATASET = "seen-and-heard"
NETWORK = "two CNNs, joined"
EPOCHS = 20
LEARNING_RATE = 2e-3

_FRAMES, _AVERAGED = 140, 4  # the longest, and frames that become one
_MEL = PerceiverIOFeatureExtractor(
    sampling_rate=2000, features="log-mel", num_mel_bands=40, normalize="standard"
)


def features(rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """The pixels, and beside them a mel picture, four frames averaged to one."""
    vectors = []
    for row in rows:
        frames = _MEL.prepare(row["audio"])[:_FRAMES]
        padded = torch.nn.functional.pad(frames, (0, 0, 0, _FRAMES - len(frames)))
        picture = torch.from_numpy(row["image"]).float().flatten() / 255
        vectors.append(torch.cat([picture, padded.unflatten(0, (-1, _AVERAGED)).mean(1).flatten()]))
    return torch.stack(vectors).numpy()


def simple() -> dict[str, tuple[Any, Any]]:
    return {
        "logistic regression on pixels and mel pictures": (
            features,
            make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)),
        )
    }


def batch(rows: Sequence[Mapping[str, Any]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pictures = torch.stack([torch.from_numpy(row["image"]).float() / 127.5 - 1 for row in rows])
    frames, mask = pad_ragged([_MEL.prepare(row["audio"]) for row in rows], multiples=(4,))
    return pictures, frames, torch.ones(frames.shape[:2], dtype=torch.bool) if mask is None else mask


class _Both(torch.nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.heard = MelCNN(num_classes)
        self.seen = torch.nn.Sequential(
            torch.nn.Conv2d(1, 32, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(32, 64, 3, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Dropout(0.2),
            torch.nn.Linear(64 * 16, 128),
            torch.nn.ReLU(),
        )
        self.output = torch.nn.Linear(768 + 128, num_classes)

    def forward(
        self, pictures_BHW: torch.Tensor, frames_BTF: torch.Tensor, mask_BT: torch.Tensor
    ) -> torch.Tensor:
        both = torch.cat([self.seen(pictures_BHW[:, None]), self.heard.vectors(frames_BTF, mask_BT)], dim=1)
        logits: torch.Tensor = self.output(both)
        return logits


def network(num_classes: int) -> torch.nn.Module:
    return _Both(num_classes)
