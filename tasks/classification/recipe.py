"""What the recipes of all classifiers leave to the data."""

from __future__ import annotations

from dataclasses import dataclass, field

from perceiver_io.running import DatasetRecipe
from perceiver_io.running.recipe import epochs_of

__all__ = ["ClassificationRecipe"]


@dataclass(kw_only=True)
class ClassificationRecipe(DatasetRecipe):
    """The recipe of a classifier: how long it trains and what it keeps follows from the data, if nothing is said."""

    best_measure = "accuracy"

    num_epochs: int | None = epochs_of(DatasetRecipe.usual_steps, DatasetRecipe.most_epochs)
    best_metric: str | None = field(
        default=None,
        metadata={
            "help": "Validation measure that chooses the checkpoint to keep, loss or accuracy; none: keep the last. "
            "By default accuracy where there are 500 samples or more to validate on, else none."
        },
    )
