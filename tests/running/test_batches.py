from __future__ import annotations

from itertools import chain

import pytest
import torch

from perceiver_io.running.batches import EpochBatches, SeededBatches, dealt_batches

from . import toy


def batches(seed: int = 0) -> SeededBatches:
    return SeededBatches(toy.ToyData(), toy.collate_with_noise, seed=seed)


def test_a_batch_depends_on_seed_epoch_and_indices_alone() -> None:
    keys = [(2, 7), (2, 3)]
    first = batches().__getitems__(keys)["pixel_values"]
    torch.rand(5)
    assert torch.equal(first, batches().__getitems__(keys)["pixel_values"])
    assert not torch.equal(first, batches(seed=1).__getitems__(keys)["pixel_values"])
    assert not torch.equal(first, batches().__getitems__([(3, 7), (3, 3)])["pixel_values"])


def test_global_random_numbers_are_left_alone() -> None:
    state = torch.get_rng_state()
    batches().__getitems__([1, 2])
    assert torch.equal(state, torch.get_rng_state())


def epoch_of(sampler: EpochBatches, epoch: int) -> list[list[int]]:
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert {key for batch in batches for key, _ in batch} == {epoch}
    return [[index for _, index in batch] for batch in batches]


def order_of(sampler: EpochBatches, epoch: int = 0) -> list[int]:
    return list(chain.from_iterable(epoch_of(sampler, epoch)))


def test_each_epoch_has_its_own_order() -> None:
    sampler = EpochBatches(50, batch_size=8, seed=1)
    orders = [order_of(sampler, epoch) for epoch in (0, 1, 0)]
    assert sorted(orders[0]) == list(range(50)) == sorted(orders[1])
    assert orders[0] == orders[2] != orders[1]
    other = order_of(EpochBatches(50, batch_size=8, seed=2))
    assert orders[0] != other
    # One run's second epoch is not the next run's first.
    assert orders[1] != other


def test_all_batches_but_the_last_are_full() -> None:
    assert [len(batch) for batch in epoch_of(EpochBatches(50, batch_size=8, seed=1), 0)] == [8] * 6 + [2]
    assert [len(batch) for batch in epoch_of(EpochBatches(16, batch_size=8, seed=1), 0)] == [8, 8]


@pytest.mark.parametrize("length", [12, 13, 17, 24, 25, 31])
@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_share_the_batches_of_one(length: int, num_processes: int) -> None:
    one = epoch_of(EpochBatches(length, batch_size=4 * num_processes, seed=3), 2)
    parts = [
        epoch_of(EpochBatches(length, batch_size=4, seed=3, process=p, num_processes=num_processes), 2)
        for p in range(num_processes)
    ]
    assert {len(part) for part in parts} == {len(one)}
    for step, batch in enumerate(one):
        shares = [part[step] for part in parts]
        sizes = [len(share) for share in shares]
        assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
        assert set(chain.from_iterable(shares)) == set(batch)
        if len(batch) >= num_processes:
            assert sorted(chain.from_iterable(shares)) == sorted(batch)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 16, 30])
@pytest.mark.parametrize("num_processes", [1, 2, 3, 5])
def test_an_evaluation_sees_every_sample_once(length: int, num_processes: int) -> None:
    dealt = [
        dealt_batches(length, batch_size=4, process=p, num_processes=num_processes)
        for p in range(num_processes)
    ]
    # Whoever had fewer rounds than the others would let them wait for ever.
    assert len({len(rounds) for rounds in dealt}) == 1
    counted = [index for rounds in dealt for batch, counts in rounds if counts for index in batch]
    assert sorted(counted) == list(range(length))
    assert all(1 <= len(batch) <= 4 for rounds in dealt for batch, _ in rounds)
    # All that count in one round, one process after the other, are in the order of the rows.
    in_order = [batch for step in zip(*dealt, strict=True) for batch, counts in step if counts]
    assert list(chain.from_iterable(in_order)) == list(range(length))
