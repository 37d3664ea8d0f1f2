"""Measures, pictures, predictions and fine-tuning of classifiers.

Shape legend: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.extras import require
from perceiver_io.pictures.confusion import draw_confusion
from perceiver_io.running import PredictOptions, Setup, TrainableTask
from perceiver_io.running.task import Drawing
from perceiver_io.tasks.classification.report import per_class_report

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["ClassPredictOptions", "ClassificationTask"]

LABEL = "label"
_TOP = 5


@dataclass(kw_only=True)
class ClassPredictOptions(PredictOptions):
    """What the prediction of classes may be told.

    Raises:
        ValueError: A number is out of range.
    """

    top_k: int = field(default=3, metadata={"help": "How many classes to print."})

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}, expected 1 or more.")


class ClassificationTask(TrainableTask):
    """A task whose model has the output "label" and names its classes in `id2label`.

    Attributes:
        batch_size: How many inputs `predict` takes at once.
    """

    options_class = ClassPredictOptions
    batch_size: ClassVar[int] = 64

    def fine_tuned(
        self, config: PerceiverIOConfig, processor: Any, recipe: Any, data: Splits
    ) -> tuple[PerceiverIOConfig, Any]:
        """Gives the output as many classes as the data has."""
        if LABEL not in config.outputs:
            raise ValueError(f"The model is no classifier: its outputs are {list(config.outputs)}.")
        part = config.outputs[LABEL]
        label = type(part).from_dict({**part.to_dict(), "num_classes": len(data.class_names)})
        names = dict(enumerate(data.class_names))
        return config.replaced(outputs={**config.outputs, LABEL: label}, id2label=names), processor

    def measures(self, setup: Setup) -> dict[str, Metric]:
        """Accuracy; of more than five classes, whether the right one is among the five largest; what is confused."""
        metrics = require("torchmetrics.classification", extra="train")
        num_classes = len(setup.data.class_names)
        measures = {"accuracy": metrics.MulticlassAccuracy(num_classes, average="micro", validate_args=False)}
        if num_classes > _TOP:
            measures[f"top{_TOP}_accuracy"] = metrics.MulticlassAccuracy(
                num_classes, average="micro", top_k=_TOP, validate_args=False
            )
        measures["confusion"] = metrics.MulticlassConfusionMatrix(num_classes, validate_args=False)
        return measures

    def results(self, setup: Setup, values: Mapping[str, Any]) -> dict[str, Any]:
        """The confusion matrix, and precision, recall and F1 of each class."""
        confusion = values["confusion"].numpy().astype(np.int64)
        return {
            "per_class": per_class_report(confusion, setup.data.class_names),
            "confusion": confusion.tolist(),
        }

    def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
        """The confusion matrix."""
        counts = np.asarray(results["confusion"])
        return {"confusion.png": partial(draw_confusion, counts, setup.data.class_names)}

    def describe_results(self, results: Mapping[str, Any]) -> str:
        """Returns what matters most, on one line."""
        split = results["split"]
        line = f"{split} accuracy {results[f'{split}_accuracy']:.2%} of {results[f'{split}_samples']} samples"
        line += f", loss {results[f'{split}_loss']:.4f}"
        if "train_seconds" in results:
            line += f"; trained in {results['train_seconds']:.1f} s, {results['parameters']:,} parameters"
        return line

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns one line: the file, and its classes with probabilities."""
        labels = "  ".join(f"{one['label']} {one['probability']:.1%}" for one in prediction["labels"])
        return f"{prediction['file']}: {labels}"

    def most_probable(self, model: Any, logits_BK: torch.Tensor, *, top_k: int) -> list[list[dict[str, Any]]]:
        """Returns the most probable classes of each sample, the best first, as `predict` gives them.

        Args:
            model: The model, which has the names.
            logits_BK: What it gave.
            top_k: How many.

        Raises:
            ValueError: The logits are not finite.
        """
        if not logits_BK.isfinite().all():
            raise ValueError("The model gives values that are not numbers: its weights are damaged.")
        names: Mapping[int, str] = model.config.id2label
        probabilities, classes = logits_BK.float().softmax(-1).topk(min(top_k, logits_BK.shape[-1]))
        return [
            [{"label": names[index], "probability": p} for index, p in zip(indices, row, strict=True)]
            for row, indices in zip(probabilities.tolist(), classes.tolist(), strict=True)
        ]

    def in_batches(self, inputs: Sequence[str]) -> list[Sequence[str]]:
        """Returns inputs in batches that are predicted at once."""
        return [inputs[start : start + self.batch_size] for start in range(0, len(inputs), self.batch_size)]
