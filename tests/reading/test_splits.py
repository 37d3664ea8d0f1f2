from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from perceiver_io.data import Splits, hold_out, split_rows
from perceiver_io.data.settings import DataSettings


def items(rows: Any) -> list[Any]:
    return [rows[index] for index in range(len(rows))]


@pytest.mark.parametrize("labels", [None, [0, 1, 1] * 20])
@pytest.mark.parametrize(("fraction", "seed"), [(0.25, 0), (0.1, 7), (0.5, 2**32 - 1)])
def test_the_split_is_scikit_learns(labels: list[int] | None, fraction: float, seed: int) -> None:
    kept, held = hold_out(60, fraction, seed, labels=labels, class_names=["a", "b"])
    expected = train_test_split(range(60), test_size=fraction, random_state=seed, stratify=labels)
    assert [kept.tolist(), held.tolist()] == [sorted(part) for part in expected]


@given(
    num_rows=st.integers(10, 80),
    validation_fraction=st.sampled_from([0.0, 0.1, 0.3]),
    test_fraction=st.sampled_from([0.1, 0.25, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_row_is_in_one_set(
    num_rows: int, validation_fraction: float, test_fraction: float, seed: int
) -> None:
    rows = [f"row {index}" for index in range(num_rows)]
    settings = DataSettings(validation_fraction=validation_fraction, test_fraction=test_fraction)
    splits = split_rows(rows, settings, seed=seed)
    assert (splits.validation is None) == (validation_fraction == 0)
    parts = [items(part) for part in (splits.train, splits.validation, splits.test) if part is not None]
    assert sorted(row for part in parts for row in part) == sorted(rows)
    assert len(parts[-1]) == np.ceil(num_rows * test_fraction)
    other = split_rows(rows, settings, seed=0)
    assert items(other.test) == parts[-1]
    assert splits.class_names == ()


def test_classes_are_split_in_equal_proportions() -> None:
    labels = [0] * 60 + [1] * 30 + [2] * 10
    splits = split_rows(
        list(enumerate(labels)),
        DataSettings(validation_fraction=0.25, test_fraction=0.2),
        seed=3,
        labels=labels,
        class_names=["a", "b", "c"],
    )
    assert splits.class_names == ("a", "b", "c")
    counts = {
        name: Counter(label for _, label in items(splits.named(name)))
        for name in ("train", "validation", "test")
    }
    assert counts == {
        "train": {0: 36, 1: 18, 2: 6},
        "validation": {0: 12, 1: 6, 2: 2},
        "test": {0: 12, 1: 6, 2: 2},
    }


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0] * 8 + [1] * 2, r"split in 3 sets.*got fewer of: b \(2\)"),
        ([0, 1] * 5, "fraction of 0.1 of 10 samples cannot be held out with all classes in it"),
    ],
)
def test_what_cannot_be_split(labels: list[int], message: str) -> None:
    settings = DataSettings(validation_fraction=0.2, test_fraction=0.1)
    with pytest.raises(ValueError, match=message):
        split_rows(list(range(10)), settings, seed=0, labels=labels, class_names=["a", "b"])


def test_too_few_rows() -> None:
    with pytest.raises(ValueError, match="of 1 samples cannot be held out:"):
        split_rows(["a"], DataSettings(validation_fraction=0, test_fraction=0.5), seed=0)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="The validation set is empty"):
        Splits(train=[1], validation=[], test=[2])


@pytest.mark.parametrize("with_labels", [True, False])
def test_a_part_of_the_training_rows(with_labels: bool) -> None:
    """Of each class the same part; what is tested and validated on stays; another seed chooses others."""
    labels = [0] * 100 + [1] * 60 + [2] * 5
    rows = list(enumerate(labels))
    more = {"labels": labels, "class_names": ["a", "b", "c"]} if with_labels else {}
    whole, part, again, other = (
        split_rows(rows, DataSettings(train_fraction=fraction), seed=seed, **more)
        for fraction, seed in ((1.0, 3), (0.1, 3), (0.1, 3), (0.1, 4))
    )
    assert items(part.train) == items(again.train) != items(other.train)
    assert set(items(part.train)) < set(items(whole.train))
    assert items(part.test) == items(whole.test) and items(part.validation) == items(whole.validation)
    counts, all_counts = (Counter(label for _, label in items(one.train)) for one in (part, whole))
    if with_labels:
        assert counts == {label: max(1, round(0.1 * count)) for label, count in all_counts.items()}
    else:
        assert counts.total() == round(0.1 * all_counts.total())


def test_parts_of_nothing_are_refused() -> None:
    for wrong in (0.0, -0.1, 1.5):
        with pytest.raises(ValueError, match=f"train_fraction is {wrong}, expected a part"):
            DataSettings(train_fraction=wrong)
