"""Three sets of rows, and how a set is split in two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch.utils.data import Subset

from perceiver_io.data.settings import SplitSettings
from perceiver_io.extras import require
from perceiver_io.printable import shown

__all__ = ["TEST_SPLIT_SEED", "Splits", "hold_out", "hold_out_missing", "learned_part", "split_rows"]

_LONGEST = 500  # of the names of classes in a message

TEST_SPLIT_SEED = 0
"""A test set that is taken out of the training set is the same whatever the run's seed is."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What to learn from, what to choose the best checkpoint by, and what to be judged by.

    Rows are anything with a length and an index: a `datasets.Dataset`, a list, any map-style dataset.

    Attributes:
        train: Training set.
        validation: Validation set; None where none was asked for.
        test: Test set, which nothing is chosen by.
        class_names: Names of the classes, by index; empty where there are none.

    Raises:
        ValueError: A set is empty.
    """

    train: Any
    validation: Any | None
    test: Any
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split, rows in self._sets().items():
            if rows is not None and len(rows) == 0:
                raise ValueError(f"The {split} set is empty. Fill it, or take it away.")

    def named(self, split: str) -> Any:
        """Returns the rows of "train", "validation" or "test".

        Raises:
            ValueError: There is no such split, or this run has none.
        """
        rows = self._sets().get(split)
        if rows is None:
            raise ValueError(
                f"The run has no data in the split {split!r}. Choose from test, validation, train."
            )
        return rows

    def mapped(self, function: Callable[[Any], Any]) -> Splits:
        """Returns the same sets with a function applied to each row when it is asked for."""
        return replace(
            self,
            train=_MappedRows(self.train, function),
            validation=None if self.validation is None else _MappedRows(self.validation, function),
            test=_MappedRows(self.test, function),
        )

    def _sets(self) -> dict[str, Any]:
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclass(frozen=True)
class _MappedRows:
    rows: Any
    function: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.function(self.rows[index])


def split_rows(
    rows: Any,
    settings: SplitSettings,
    *,
    seed: int,
    labels: Sequence[int] | None = None,
    class_names: Sequence[str] = (),
    groups: Sequence[Hashable] | None = None,
) -> Splits:
    """Splits rows in three; with labels, the classes in equal proportions.

    Args:
        rows: The rows.
        settings: How many to test on, the same ones whatever `seed` is, and how many of the others to validate on; a
            recipe is such settings.
        seed: Decides which rows are validated on.
        labels: Class index of each row.
        class_names: Names of the classes.
        groups: What each row was taken from: rows of one group go into one set. The classes are in about equal
            proportions then.

    Raises:
        ValueError: There are too few rows, or groups.
    """
    found = hold_out_missing(
        len(rows), settings, seed=seed, labels=labels, class_names=class_names, groups=groups
    )
    sets = {split: _select(rows, indices) for split, indices in found.items()}
    return Splits(
        train=sets["train"],
        validation=sets.get("validation"),
        test=sets["test"],
        class_names=tuple(class_names),
    )


def hold_out_missing(
    num_rows: int,
    settings: SplitSettings,
    *,
    seed: int,
    present: Collection[str] = (),
    labels: Sequence[int] | None = None,
    class_names: Sequence[str] = (),
    groups: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """Splits the indices of training rows: takes out the sets that a source does not have.

    Args:
        num_rows: How many training rows there are.
        settings: As `split_rows`.
        seed: As `split_rows`.
        present: The sets that the source has: "test", "validation", or both.
        labels: As `split_rows`.
        class_names: As `split_rows`.
        groups: As `split_rows`.

    Returns:
        Indices by set, of "train", and "test" and "validation" where they are missing and wanted.

    Raises:
        ValueError: As `split_rows`.
    """
    wanted = (
        ("test", settings.test_fraction, TEST_SPLIT_SEED),
        ("validation", settings.validation_fraction, seed),
    )
    missing = [one for one in wanted if one[0] not in present and one[1]]
    train: Any = np.arange(num_rows)
    found = {}
    for place, (split, fraction, seed_of_split) in enumerate(missing):
        remaining, held = hold_out(
            len(train),
            fraction,
            seed_of_split,
            labels=None if labels is None else [labels[index] for index in train],
            class_names=class_names,
            parts=len(missing) - place + 1,
            groups=None if groups is None else [groups[index] for index in train],
        )
        train, found[split] = train[remaining], train[held]
    if settings.train_fraction < 1:
        of_train = [0 if labels is None else labels[index] for index in train]
        train = train[learned_part(of_train, settings.train_fraction, seed)]
    return {"train": train, **found}


def learned_part(labels: Sequence[int], fraction: float, seed: int) -> Any:
    """Chooses some of the training rows, of each class the same part, but one row at least.

    Args:
        labels: Class index of each row; all the same where there are no classes.
        fraction: The part.
        seed: Of the random choice.

    Returns:
        The indices of the rows, sorted.
    """
    rng, labels_N = np.random.default_rng(seed), np.asarray(labels)
    chosen = []
    for label in np.unique(labels_N):
        rows = rng.permutation(np.flatnonzero(labels_N == label))
        chosen.append(rows[: max(1, round(fraction * len(rows)))])
    return np.sort(np.concatenate(chosen))


def hold_out(
    num_rows: int,
    fraction: float,
    seed: int,
    *,
    labels: Sequence[int] | None = None,
    class_names: Sequence[str] = (),
    parts: int = 2,
    groups: Sequence[Hashable] | None = None,
) -> tuple[Any, Any]:
    """Splits the indices of rows in two: of what remains, and of the part held out, both sorted.

    Args:
        num_rows: How many rows there are.
        fraction: Size of the part held out.
        seed: Of the random choice.
        labels: Class index of each row; the classes are held out in equal proportions.
        class_names: Names of the classes.
        parts: In how many sets the rows have to go in the end.
        groups: As `split_rows`.

    Raises:
        ValueError: There are too few rows or groups, all in all or of a class.
    """
    if groups is not None:
        return _groups_held_out(groups, fraction, seed, labels=labels, class_names=class_names, parts=parts)
    if labels is not None and (
        rare := [
            f"{class_names[index]} ({count})"
            for index, count in sorted(Counter(labels).items())
            if count < parts
        ]
    ):
        raise ValueError(
            f"Too few samples to split in {parts} sets, expected {parts} at least of each class, "
            f"got fewer of: {shown(', '.join(rare), most=_LONGEST)}. Add samples, or bring test and validation sets of "
            "your own."
        )
    try:
        remaining, held_out = require("sklearn.model_selection", extra="train").train_test_split(
            np.arange(num_rows), test_size=fraction, random_state=seed, stratify=labels
        )
    except ValueError as error:
        raise ValueError(
            f"A fraction of {fraction} of {num_rows} samples cannot be held out"
            f"{' with all classes in it' if labels is not None else ''}: {error} Add samples, or choose "
            "another fraction."
        ) from error
    return np.sort(remaining), np.sort(held_out)


def _groups_held_out(
    groups: Sequence[Hashable],
    fraction: float,
    seed: int,
    *,
    labels: Sequence[int] | None,
    class_names: Sequence[str],
    parts: int,
) -> tuple[Any, Any]:
    """Of each class whole groups in random order, as long as they bring the number of rows nearer to its part."""
    rng = np.random.default_rng(seed)
    class_of = dict(zip(groups, labels or [0] * len(groups), strict=True))
    sizes = Counter(groups)
    held: set[Hashable] = set()
    for label in sorted(set(class_of.values())):
        members = [group for group in sizes if class_of[group] == label]
        if len(members) < parts:
            name = f" of the class {shown(class_names[label], most=_LONGEST)}" if class_names else ""
            raise ValueError(f"Rows{name} are from {len(members)} sources, too few for {parts} sets.")
        missing = fraction * sum(sizes[group] for group in members)
        most = len(members) - (parts - 1)
        chosen: list[Hashable] = []
        for index in rng.permutation(len(members)):
            size = sizes[members[index]]
            if len(chosen) < most and abs(missing - size) < missing:
                chosen.append(members[index])
                missing -= size
        if not chosen:
            chosen = [min(members, key=lambda group: sizes[group])]
        held.update(chosen)
    is_held = np.array([group in held for group in groups])
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def _select(rows: Any, indices: Any) -> Subset[Any]:
    return Subset(rows, [int(index) for index in indices])
