"""Batches whose content depends on the seed and the epoch alone.

Augmentation draws from torch's global random numbers. The data loader runs a batch ahead of training, or in other
processes, so that what it draws would depend on when it runs: a resumed run would see other images than an
uninterrupted one, and two workers others than one. Here each batch is drawn from a seed of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

__all__ = ["EpochShuffle", "SeededBatches", "take_batch"]

# An epoch and an index into the data: a batch's keys tell all that its seed needs, in any worker.
Key = tuple[int, int]


class EpochShuffle(Sampler[Key]):
    """Shuffles anew each epoch.

    Args:
        length: Number of samples.
        seed: Seed of the order.
    """

    def __init__(self, length: int, *, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        generator = torch.Generator().manual_seed(_seed(self.seed, self.epoch))
        for index in torch.randperm(self.length, generator=generator).tolist():
            yield self.epoch, index


class SeededBatches(Dataset[Any]):
    """A dataset that hands out whole collated batches.

    Args:
        dataset: Rows by index, for example a `datasets.Dataset`.
        collate: Makes a batch of a list of rows.
        seed: Seed of all random numbers that rows and `collate` draw from torch.
    """

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Mapping[str, Any]], *, seed: int) -> None:
        self.dataset = dataset
        self.collate = collate
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: Sequence[Key | int]) -> Mapping[str, Any]:
        """Returns the batch of some keys; a bare index stands for epoch 0."""
        pairs = [key if isinstance(key, tuple) else (0, key) for key in keys]
        indices = [index for _, index in pairs]
        with torch.random.fork_rng(devices=()):
            # Not torch.manual_seed, which would seed accelerators too, and with them dropout.
            torch.default_generator.manual_seed(_seed(self.seed, *pairs[0]))
            if hasattr(self.dataset, "__getitems__"):
                rows = self.dataset.__getitems__(indices)
            else:
                rows = [self.dataset[index] for index in indices]
            return self.collate(rows)


def take_batch(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """The collate function for `SeededBatches`, whose batches are collated already."""
    return batch


def _seed(*numbers: int) -> int:
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
