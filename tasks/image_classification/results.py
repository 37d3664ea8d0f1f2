"""The results of a run: what `metrics.json` holds, and how it reads."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import transformers

from perceiver_io.tasks.image_classification.metrics import confusion, per_class_report
from perceiver_io.tasks.image_classification.recipe import ImageClassificationRecipe

if TYPE_CHECKING:
    from perceiver_io.running.trainer import Trainer

__all__ = ["describe_results", "evaluation_results", "training_results"]


def evaluation_results(
    scores: Mapping[str, float], labels: Any, logits: Any, class_names: Sequence[str], *, split: str = "test"
) -> dict[str, Any]:
    """Returns the results of one evaluation, as JSON values.

    Args:
        scores: The loss and what `compute_metrics` returns.
        labels: Class indices (N,).
        logits: Logits (N, K), or a tuple that starts with them.
        class_names: Names of the K classes, by class index.
        split: Name of the images; the scores are named after it.
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    predictions = logits.argmax(axis=-1)
    return {
        "split": split,
        **{f"{split}_{name}": float(value) for name, value in scores.items()},
        f"{split}_images": len(labels),
        "per_class": per_class_report(labels, predictions, class_names),
        "confusion": confusion(labels, predictions, len(class_names)).tolist(),
    }


def training_results(
    trainer: Trainer, recipe: ImageClassificationRecipe, num_parameters: int
) -> dict[str, Any]:
    """Returns how a model was trained: time, steps, settings, versions and what was logged, as JSON values.

    Args:
        trainer: The trainer, after the training.
        recipe: Its recipe.
        num_parameters: Number of the model's parameters.
    """
    import perceiver_io

    state = trainer.state
    unwanted = ("runtime", "per_second", "flos")
    return {
        "train_seconds": trainer.train_seconds,
        "steps": state.global_step,
        "best_step": state.best_global_step,
        "best_metric": {"name": trainer.args.metric_for_best_model, "value": state.best_metric},
        "parameters": num_parameters,
        "seed": recipe.seed,
        "processes": trainer.args.world_size,
        "device": str(trainer.args.device),
        "versions": {
            "perceiver_io": perceiver_io.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "history": [
            {name: value for name, value in entry.items() if not name.endswith(unwanted)}
            for entry in state.log_history
        ],
    }


def describe_results(metrics: Mapping[str, Any]) -> str:
    """Returns results as text for people: what matters most, on one line.

    Args:
        metrics: What `evaluation_results` returned, with or without what `training_results` did.
    """
    split = metrics["split"]
    line = f"{split} accuracy {metrics[f'{split}_accuracy']:.2%} of {metrics[f'{split}_images']} images"
    line += f", loss {metrics[f'{split}_loss']:.4f}"
    if "train_seconds" in metrics:
        line += f"; trained in {metrics['train_seconds']:.1f} s, {metrics['parameters']:,} parameters"
    return line
