"""Windows of tokens to batches: padded before, moved at random in training, labelled where something is predicted.

Shape legend: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from perceiver_io.tasks.autoregressive.model import IGNORED
from perceiver_io.tasks.autoregressive.windows import Window

__all__ = ["WindowCollator"]


class WindowCollator:
    """Makes a batch of windows.

    Random numbers are those of torch's global generator.

    Args:
        pad_id: What stands before windows that are shorter than others.
        num_latents: N of the model.
        train: Whether windows are moved at random.
        short_share: Which part of the training batches is of windows cut short before what they predict, to a length
            drawn at random, so that a model knows short contexts.
    """

    def __init__(self, *, pad_id: int, num_latents: int, train: bool, short_share: float = 0.0) -> None:
        self.pad_id, self.num_latents, self.train, self.short_share = pad_id, num_latents, train, short_share

    def __call__(self, windows: Sequence[Window]) -> dict[str, Tensor]:
        """Returns `input_ids`, `attention_mask` where there is padding, and `labels`, (B, T) each."""
        rows = []
        for window in windows:
            rows.append(window.ending(int(torch.randint(window.spare + 1, ())) if self.train else 0))
        longest = max(map(len, rows))
        if self.train and torch.rand(()) < self.short_share and longest > self.num_latents:
            longest = int(torch.randint(self.num_latents, longest + 1, ()))
            rows = [tokens[-longest:] for tokens in rows]
        ids_BT = torch.full((len(rows), longest), self.pad_id, dtype=torch.int64)
        mask_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
        labels_BT = torch.full_like(ids_BT, IGNORED)
        for row, (tokens, window) in enumerate(zip(rows, windows, strict=True)):
            ids = torch.from_numpy(np.asarray(tokens).astype(np.int64))
            ids_BT[row, longest - len(ids) :] = ids
            mask_BT[row, longest - len(ids) :] = True
            count = min(window.num_predicted, len(ids) - 1)
            labels_BT[row, longest - count :] = ids[len(ids) - count :]
        batch = {"input_ids": ids_BT, "labels": labels_BT}
        return batch if bool(mask_BT.all()) else {**batch, "attention_mask": mask_BT}
