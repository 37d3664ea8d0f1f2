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

__all__ = ["EpochBatches", "SeededBatches", "dealt_batches", "take_batch"]

# An epoch and an index into the data: a batch's keys tell all that its seed needs, in any worker.
Key = tuple[int, int]


class EpochBatches(Sampler[list[Key]]):
    """Shuffles anew each epoch, and deals each batch out to the processes.

    All processes together take the same batches as one process would that is given batches as large as all of theirs:
    each takes an equal part of every one, the last and smaller one too. Where that has fewer samples than there are
    processes, those that would get none take one that counts twice then.

    Args:
        length: Number of samples.
        batch_size: Samples in a batch, per process.
        seed: Seed of the order.
        process: Index of this process.
        num_processes: How many there are.
    """

    def __init__(
        self, length: int, *, batch_size: int, seed: int, process: int = 0, num_processes: int = 1
    ) -> None:
        self.length = length
        self.batch_size = batch_size * num_processes
        self.seed = seed
        self.process = process
        self.num_processes = num_processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(_seed(self.seed, self.epoch))
        order = torch.randperm(self.length, generator=generator)
        for batch in order.split(self.batch_size):
            part = batch.tensor_split(self.num_processes)[self.process]
            if not len(part):
                part = batch[:1]
            yield [(self.epoch, index) for index in part.tolist()]


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


def dealt_batches(
    length: int, *, batch_size: int, process: int = 0, num_processes: int = 1
) -> list[tuple[list[int], bool]]:
    """Returns the batches of one process that goes through data once, in order.

    Every process gets equally many, so that none waits for another; one that lacks a batch repeats the first.

    Args:
        length: Number of samples.
        batch_size: Samples in a batch.
        process: Index of this process.
        num_processes: How many there are.

    Returns:
        The indices of each batch, and whether it counts.
    """
    batches = [list(range(start, min(start + batch_size, length))) for start in range(0, length, batch_size)]
    own = [(batch, True) for batch in batches[process::num_processes]]
    rounds = -(-len(batches) // num_processes)
    return own + [(batches[0], False)] * (rounds - len(own))


def take_batch(batch: Any) -> Any:
    """The collate function for `SeededBatches`, whose batches are collated already."""
    return batch


def _seed(*numbers: int) -> int:
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
