"""What `metrics.json` holds of an evaluation and of a training."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import torch
import transformers

import perceiver_io
from perceiver_io.running.measures import scalars
from perceiver_io.running.task import Setup, TrainableTask
from perceiver_io.running.trainer import Trainer

__all__ = ["evaluation_results", "training_results"]

_LEFT_OUT = ("runtime", "per_second", "flos")


def evaluation_results(
    task: TrainableTask, setup: Setup, values: Mapping[str, Any], *, split: str, num_samples: int
) -> dict[str, Any]:
    """Returns the results of one evaluation, as JSON values.

    Args:
        task: The task, which may add more than single numbers.
        setup: The run.
        values: What `evaluate_rows` returned.
        split: Name of the rows; single numbers are named after it.
        num_samples: How many rows there were.
    """
    return {
        "split": split,
        **{f"{split}_{name}": value for name, value in scalars(values).items()},
        f"{split}_samples": num_samples,
        **task.results(setup, values),
    }


def training_results(trainer: Trainer, setup: Setup) -> dict[str, Any]:
    """Returns how a model was trained: time, steps, settings, versions and what was logged, as JSON values.

    Args:
        trainer: The trainer, after the training.
        setup: The run.
    """
    state = trainer.state
    return {
        "train_seconds": trainer.train_seconds,
        "steps": state.global_step,
        "best_step": state.best_global_step,
        "best_metric": {"name": trainer.args.metric_for_best_model, "value": state.best_metric},
        "parameters": setup.model.num_parameters(),
        "seed": setup.recipe.seed,
        "processes": trainer.args.world_size,
        "device": str(trainer.args.device),
        "versions": {
            "perceiver_io": perceiver_io.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "history": [
            {name: value for name, value in entry.items() if not name.endswith(_LEFT_OUT)}
            for entry in state.log_history
        ],
    }
