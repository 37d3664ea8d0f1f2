from __future__ import annotations

import torch

from perceiver_io.running.batches import EpochShuffle, SeededBatches

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


def test_each_epoch_has_its_own_order() -> None:
    sampler = EpochShuffle(50, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key for key, _ in keys} == {epoch}
        orders.append([index for _, index in keys])
    assert sorted(orders[0]) == list(range(50)) == sorted(orders[1])
    assert orders[0] == orders[2] != orders[1]
    assert orders[0] != [index for _, index in EpochShuffle(50, seed=2)]
    # One run's second epoch is not the next run's first.
    assert orders[1] != [index for _, index in EpochShuffle(50, seed=2)]
