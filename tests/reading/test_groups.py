"""Rows of one source go into one set."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_io.data import hold_out, split_rows
from perceiver_io.data.settings import SplitSettings


def test_groups_are_held_out_whole_and_in_proportion() -> None:
    rng = np.random.default_rng(0)
    groups = [group for group in range(60) for _ in range(rng.integers(1, 20))]
    labels = [group % 3 for group in groups]
    rows = list(zip(groups, labels, strict=True))
    made = split_rows(
        rows, SplitSettings(), seed=3, labels=labels, class_names=["a", "b", "c"], groups=groups
    )
    sets = [
        {part[index][0] for index in range(len(part))} for part in (made.train, made.validation, made.test)
    ]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    assert len(made.train) + len(made.validation) + len(made.test) == len(rows)
    assert abs(len(made.test) / len(rows) - 0.2) < 0.03
    for label in range(3):
        share = sum(made.test[index][1] == label for index in range(len(made.test))) / labels.count(label)
        assert abs(share - 0.2) < 0.05


def test_the_seed_decides_which_groups() -> None:
    groups = [index // 4 for index in range(80)]
    first, again, other = (hold_out(80, 0.2, seed, groups=groups)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("sizes", [(100, 1, 1), (1, 1, 100), (50, 50, 50)])
def test_each_set_gets_a_group(sizes: tuple[int, ...]) -> None:
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    made = split_rows(groups, SplitSettings(), seed=0, groups=groups)
    assert len(made.train) and made.validation and len(made.test)


def test_too_few_groups() -> None:
    with pytest.raises(ValueError, match="Rows of the class b are from 2 sources, too few for 3 sets"):
        split_rows(
            range(8),
            SplitSettings(),
            seed=0,
            labels=[0, 0, 0, 0, 1, 1, 1, 1],
            class_names=["a", "b"],
            groups=[0, 1, 2, 3, 4, 4, 5, 5],
        )
