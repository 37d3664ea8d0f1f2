from __future__ import annotations

from collections import Counter
from typing import Any

import datasets
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from perceiver_io.data import Splits
from perceiver_io.tasks.image_classification.recipe import ImageClassificationRecipe
from perceiver_io.tasks.image_classification.task import ImageClassificationTask


def load(**settings: Any) -> Splits:
    return ImageClassificationTask().data(ImageClassificationRecipe(dataset="digits", **settings))


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load()


def fingerprint(rows: datasets.Dataset) -> list[bytes]:
    return [image["bytes"] for image in rows.cast_column("image", datasets.Image(decode=False))["image"]]


def test_digits_are_those_of_scikit_learn(digits: Splits) -> None:
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1293, 144, 360)
    assert digits.class_names == tuple("0123456789")
    assert digits.train.features == {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list("0123456789")),
    }
    expected = Counter(
        (label, np.round(image * 255 / 16).astype(np.uint8).tobytes())
        for image, label in zip(load_digits().images, load_digits().target, strict=True)
    )
    got: Counter[tuple[int, bytes]] = Counter()
    for rows in (digits.train, digits.validation, digits.test):
        for row in rows:
            assert row["image"].mode == "L"
            got[row["label"], np.asarray(row["image"]).tobytes()] += 1
    assert got == expected


@pytest.mark.parametrize("seed", [0, 3])
def test_digits_are_split_as_scikit_learn_splits(seed: int) -> None:
    source = load_digits()
    rest, test = train_test_split(range(1797), test_size=0.2, random_state=0, stratify=source.target)
    rest = sorted(rest)
    train, validation = train_test_split(rest, test_size=0.1, random_state=seed, stratify=source.target[rest])
    data = load(seed=seed)
    for rows, indices in ((data.train, train), (data.validation, validation), (data.test, test)):
        expected = np.round(source.images[sorted(indices)] * 255 / 16).astype(np.uint8)
        np.testing.assert_array_equal(np.stack([np.asarray(image) for image in rows["image"]]), expected)
        np.testing.assert_array_equal(rows["label"][:], source.target[sorted(indices)])


def test_splits_are_stratified(digits: Splits) -> None:
    whole = Counter(load_digits().target.tolist())
    for rows, fraction in ((digits.test, 0.2), (digits.validation, 0.08)):
        for label, count in Counter(rows["label"][:]).items():
            assert abs(count - fraction * whole[label]) <= 1


def test_the_seed_changes_the_validation_set_only(digits: Splits) -> None:
    again, other = load(), load(seed=1)
    assert fingerprint(again.validation) == fingerprint(digits.validation)
    assert fingerprint(other.test) == fingerprint(digits.test)
    assert fingerprint(other.validation) != fingerprint(digits.validation)


def test_no_validation_set() -> None:
    data = load(validation_fraction=0)
    assert data.validation is None
    assert (len(data.train), len(data.test)) == (1437, 360)


def test_a_seed_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"seed is 4294967296, expected less than 2\*\*32"):
        load(seed=2**32)
