"""What a recipe leaves to the data: how long to train, how often to evaluate, what to choose a checkpoint by."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import torch

from perceiver_io.running.recipe import TrainingRecipe

__all__ = ["fitted"]

RecipeT = TypeVar("RecipeT", bound=TrainingRecipe)

_LEAST_EPOCHS, _LEAST_EPOCHS_ON_ACCELERATOR = 10, 30
_NUM_EVALUATIONS = 30
# Of fewer samples, the best of many accuracies is the luckiest one: the last weights are as good, and have settled.
_ENOUGH_TO_CHOOSE = 500


def fitted(recipe: RecipeT, *, num_train: int, num_validation: int, num_processes: int = 1) -> RecipeT:
    """Returns a recipe with nothing left to the data. It is what recipe.yaml says, so that a resumed run has it too.

    - `num_epochs`: as many as make the recipe's `usual_steps`, from 10 (with an accelerator 30) to its `most_epochs`;
      `evaluate_every` then follows, so that there are no more than 30 evaluations.
    - `best_metric`: the task's own measure where there are 500 samples or more to validate on, else none: the last
      checkpoint.

    What the recipe says stays.

    Args:
        recipe: The recipe.
        num_train: How many samples there are to train on.
        num_validation: How many to validate on.
        num_processes: How many processes train together.
    """
    changes: dict[str, Any] = {}
    if recipe.num_epochs is None:
        batches = -(-num_train // (recipe.batch_size * num_processes))
        steps = -(-batches // recipe.gradient_accumulation_steps)
        on_accelerator = recipe.device != "cpu" and torch.accelerator.is_available()
        least = _LEAST_EPOCHS_ON_ACCELERATOR if on_accelerator else _LEAST_EPOCHS
        num_epochs = min(max(-(-recipe.usual_steps // steps), least), recipe.most_epochs)
        every = -(-num_epochs // _NUM_EVALUATIONS)
        changes["num_epochs"] = -(-num_epochs // every) * every  # the last evaluation is of the last weights
        if recipe.evaluate_every is None and recipe.max_steps is None and every > 1:
            changes["evaluate_every"] = every * steps
    if recipe.best_metric is None:
        changes["best_metric"] = recipe.best_measure if num_validation >= _ENOUGH_TO_CHOOSE else "none"
    return dataclasses.replace(recipe, **changes)
