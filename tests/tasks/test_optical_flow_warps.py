"""Pairs of warped photographs: the flow leads from the first frame to the second, and pairs depend on nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perceiver_io.tasks.optical_flow.data import warped_photographs
from perceiver_io.tasks.optical_flow.warps import (
    TEST_PHOTOGRAPHS,
    TRAINING_PHOTOGRAPHS,
    WarpedPhotographs,
)

pytest.importorskip("skimage")


def rows(count: int = 40, *, size: tuple[int, int] = (64, 64), seed: int = 3) -> list[dict[str, Tensor]]:
    made = WarpedPhotographs(names=TEST_PHOTOGRAPHS, size=size, num_pairs=count, seed=seed)
    return [made[index] for index in range(count)]


def differences(row: dict[str, Tensor], flow: Tensor) -> Tensor:
    """How far the first frame is from the second at where each pixel goes, by bilinear interpolation in plain loops."""
    height, width = row["valid"].shape
    first, second = (row[name].double().mean(0) for name in ("first", "second"))
    found = torch.full((height, width), torch.nan, dtype=torch.float64)
    for y in range(0, height, 3):
        for x in range(0, width, 3):
            if row["valid"][y, x]:
                to_x, to_y = x + flow[0, y, x].item(), y + flow[1, y, x].item()
                left, top = min(int(to_x), width - 2), min(int(to_y), height - 2)
                a, b = to_x - left, to_y - top
                value = (1 - b) * ((1 - a) * second[top, left] + a * second[top, left + 1])
                value += b * ((1 - a) * second[top + 1, left] + a * second[top + 1, left + 1])
                found[y, x] = (first[y, x] - value).abs()
    return found[~found.isnan()]


def test_the_flow_leads_to_where_pixels_are_in_the_second_frame() -> None:
    made = rows(12)
    with_flow = torch.cat([differences(row, row["flow"]) for row in made])
    at_rest = torch.cat([differences(row, torch.zeros_like(row["flow"])) for row in made])
    assert with_flow.mean() < 0.25 * at_rest.mean()
    assert with_flow.median() < 3  # of 255: both frames are interpolated, and one of them once more here


def test_hidden_pixels_are_not_where_the_flow_says() -> None:
    """In what is marked as hidden, and lands inside of the frame, the second frame shows something else."""
    of_hidden, of_valid = [], []
    for row in rows(40):
        height, width = row["valid"].shape
        ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        to_x, to_y = (xs + row["flow"][0]).round().long(), (ys + row["flow"][1]).round().long()
        inside = (to_x >= 0) & (to_x < width) & (to_y >= 0) & (to_y < height)
        landed = row["second"].float()[:, to_y.clamp(0, height - 1), to_x.clamp(0, width - 1)]
        off = (landed - row["first"].float()).abs().mean(0)
        of_hidden.append(off[inside & ~row["valid"]])
        of_valid.append(off[inside & row["valid"]])
    assert torch.cat(of_hidden).mean() > 4 * torch.cat(of_valid).mean()


def test_what_leaves_the_frame_is_not_valid() -> None:
    for row in rows(20, size=(24, 40)):
        ys, xs = torch.meshgrid(torch.arange(24.0), torch.arange(40.0), indexing="ij")
        to_x, to_y = xs + row["flow"][0], ys + row["flow"][1]
        outside = (to_x < 0) | (to_x > 39) | (to_y < 0) | (to_y > 23)
        assert not (outside & row["valid"]).any()


def test_motion_is_of_a_few_pixels_and_most_of_it_is_seen() -> None:
    made = rows(60)
    lengths = torch.cat([row["flow"].norm(dim=0)[row["valid"]] for row in made])
    assert 1.5 < lengths.mean() < 3.5 and lengths.quantile(0.95) < 6.5
    seen = torch.stack([row["valid"] for row in made]).float()
    assert 0.8 < seen.mean() < 0.97
    several = [len(row["flow"][0].unique()) for row in made]
    assert min(several) > 100  # it bends everywhere


def test_a_pair_depends_on_its_index_and_the_seed_alone() -> None:
    one, other = (WarpedPhotographs(names=TEST_PHOTOGRAPHS, size=(16, 24), num_pairs=9) for _ in range(2))
    assert len(one) == 9
    other[1]
    for name, value in one[7].items():
        assert torch.equal(value, other[7][name]) and torch.equal(value, one[7][name])
    assert not torch.equal(one[7]["first"], one[8]["first"])
    changed = WarpedPhotographs(names=TEST_PHOTOGRAPHS, size=(16, 24), num_pairs=9, seed=1)
    assert not torch.equal(one[7]["first"], changed[7]["first"])
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in one[7].items()}
    assert shapes == {
        "first": ((3, 16, 24), torch.uint8),
        "second": ((3, 16, 24), torch.uint8),
        "flow": ((2, 16, 24), torch.float32),
        "valid": ((16, 24), torch.bool),
    }
    with pytest.raises(IndexError, match="There are 9 pairs, got the index 9"):
        one[9]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceiver_io.tasks.optical_flow.warps._MEMORY", 3 * 15 * 16 * 24)
    made = WarpedPhotographs(names=TEST_PHOTOGRAPHS, size=(16, 24), num_pairs=9)
    before = [made[index]["first"] for index in range(9)]
    assert len(made._kept) == 3
    assert all(torch.equal(made[index]["first"], one) for index, one in enumerate(before))


def test_sets_share_no_photograph_of_the_test_set() -> None:
    assert not set(TRAINING_PHOTOGRAPHS) & set(TEST_PHOTOGRAPHS)
    sets = warped_photographs((16, 16), num_pairs=5)
    assert sets.train.names == sets.validation.names == TRAINING_PHOTOGRAPHS
    assert sets.test.names == TEST_PHOTOGRAPHS
    assert len({sets.train.seed, sets.validation.seed, sets.test.seed}) == 3
    assert warped_photographs((16, 16), num_pairs=5, with_validation=False).validation is None


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 8x8 pixels, and at least one pair, got 7x9 and 3"):
        WarpedPhotographs(names=TEST_PHOTOGRAPHS, size=(7, 9), num_pairs=3)
