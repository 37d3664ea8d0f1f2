"""Recipes and batches of tasks with a dense output: in training, a step decodes points that are drawn at random.

Shape legend: B batch, M elements of the grid, O points of a sample, V values of an element.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.drawn_points import draw_points
from perceiver_io.running import DatasetRecipe, Setup
from perceiver_io.running.recipe import epochs_of
from perceiver_io.running.row_task import RowTask
from perceiver_io.running.task import Batch, Collate
from perceiver_io.tasks.dense.losses import UNKNOWN

__all__ = ["DenseRecipe", "DenseTask", "at_drawn_points", "known_labels"]

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class DenseRecipe(DatasetRecipe):
    """The recipe of a task with a dense output.

    Raises:
        ValueError: A value is out of its range.
    """

    usual_steps = 1300

    num_epochs: int | None = epochs_of(usual_steps, DatasetRecipe.most_epochs)
    num_points: int = field(
        default=512,
        metadata={
            "help": "Output elements of a sample that a training step decodes, drawn at random among those with a "
            "label; all, where there are no more."
        },
    )
    best_metric: str | None = field(
        default="none",
        metadata={"help": "Validation measure that chooses the checkpoint to keep; none: the last."},
    )

    def __post_init__(self) -> None:
        """Checks all values."""
        super().__post_init__()
        if self.num_points < 1:
            raise ValueError(f"num_points is {self.num_points}, expected 1 or more.")


class DenseTask(RowTask):
    """A task whose model is a `DenseModel`.

    `collate` gives whole labels, (B, *grid): integers, `UNKNOWN` where there is none, or numbers, NaN where there is
    none. An evaluation decodes the whole output.
    """

    @abstractmethod
    def variation(self, processor: Any, recipe: Any) -> Callable[[Any], Any]:
        """Returns what varies a training row at random, as the recipe says; `collate` takes what it gives."""

    def collator(self, setup: Setup, *, train: bool) -> Collate:
        """Returns what makes a batch; in training rows are varied, and only some points have labels."""
        if not train:
            return super().collator(setup, train=False)
        for name, part in setup.model.config.outputs.items():
            if isinstance(part, DenseDecoder.Config) and part.grid is not None and part.bands_beyond():
                logger.warning(
                    "The output %r is trained on a grid of %s, but asked with frequencies as for one of %s: at a finer "
                    "resolution it gets stripes. Lower its max_resolution.",
                    name,
                    part.grid,
                    part.max_resolution,
                )
        return partial(
            self._training_batch,
            processor=setup.processor,
            vary=self.variation(setup.processor, setup.recipe),
            num_points=setup.recipe.num_points,
        )

    def weight(self, batch: Batch) -> Tensor:
        """Returns how many samples have a label anywhere: of so many the loss is the mean."""
        return known_labels(batch["labels"]).flatten(1).any(1).sum()

    def drawn(self, batch: Batch, number: int) -> Batch:
        """Returns a batch in which so many points of a sample at most have labels, drawn at random.

        A task whose elements have several values overrides it, with labels (B, V, *grid).
        """
        return at_drawn_points(batch, number)

    def _training_batch(
        self, rows: Sequence[Any], *, processor: Any, vary: Callable[[Any], Any], num_points: int
    ) -> Batch:
        return self.drawn(self.collate([vary(row) for row in rows], processor), num_points)


def known_labels(labels: Tensor) -> Tensor:
    """Returns where labels are known, in their shape."""
    return ~labels.isnan() if labels.is_floating_point() else labels != UNKNOWN


def at_drawn_points(batch: Mapping[str, Any], number: int, *, channels: bool = False) -> dict[str, Any]:
    """Returns a batch with `labels` at points that are drawn, and these as `points`.

    Args:
        batch: With `labels`, (B, *grid), or (B, V, *grid).
        number: How many points of a sample; drawn are those of which all is known.
        channels: Whether labels have an axis of values; they come back as (B, O, V) then.
    """
    labels = batch["labels"]
    grid = labels.shape[2:] if channels else labels.shape[1:]
    labels_BMV = labels.flatten(2).mT if channels else labels.flatten(1)[..., None]
    points_BO, is_drawn_BO = draw_points(known_labels(labels_BMV).all(-1), number)
    labels_BOV = labels_BMV.gather(1, points_BO[..., None].expand(-1, -1, labels_BMV.shape[2]))
    unknown = float("nan") if labels.is_floating_point() else UNKNOWN
    labels_BOV = torch.where(is_drawn_BO[..., None], labels_BOV, unknown)
    # (B, O, 1) or (B, O): as many points as the grid has axes are then not misread; see `Points.parse`.
    misread = points_BO.shape[1] == len(grid)
    return {
        **batch,
        "labels": labels_BOV if channels else labels_BOV.squeeze(-1),
        "points": torch.stack(torch.unravel_index(points_BO, grid), dim=-1) if misread else points_BO,
    }
