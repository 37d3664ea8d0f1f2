"""What tasks that give each element a class have in common: measures, names of classes, lines for people.

Shape legend: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Content
from perceiver_io.extras import require
from perceiver_io.printable import printable
from perceiver_io.running.task import Batch, as_number
from perceiver_io.tasks.dense.losses import UNKNOWN

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = [
    "check_class_names",
    "class_measures",
    "class_parts",
    "found_classes",
    "iou_per_class",
    "parts_line",
    "segmented_line",
    "update_classes",
    "with_classes",
]

_NUM_NAMED, _MOST_CLASSES = 6, 1000


def check_class_names(names: Sequence[str]) -> None:
    """Checks the names of classes that a recipe gives.

    Raises:
        ValueError: There is a single one, or one twice.
    """
    if len(names) == 1 or len(set(names)) < len(names):
        raise ValueError(f"class_names are {list(names)}, expected two or more, each once.")


def found_classes(rows: Any, target: Content) -> list[str]:
    """Returns names for the classes that the targets of a training set have: "0", "1", and so on to the highest.

    Args:
        rows: Rows with the targets as int64 values, `UNKNOWN` where there is no class.
        target: The targets.

    Raises:
        ValueError: There are none, or too many for classes.
    """
    highest = -1
    indices = require("tqdm.auto", extra="train").tqdm(
        range(len(rows)),
        desc="Looking for classes",
        unit=f" {target.noun}",
        delay=1,
        leave=False,
        disable=None,
    )
    for index in indices:
        highest = max(highest, int(rows[index][target.column].max()))
    if not 0 < highest < _MOST_CLASSES:
        raise ValueError(
            f"The highest class in the {target.noun} of the training set is {highest}, expected one from 1 to "
            f"{_MOST_CLASSES - 1}. Say which values stand for no class with unknown_classes, or name the classes with "
            "class_names."
        )
    return [str(index) for index in range(highest + 1)]


def with_classes(config: PerceiverIOConfig, class_names: Sequence[str]) -> PerceiverIOConfig:
    """Returns a trained model's configuration with other classes: the output starts anew if there are more or fewer.

    Args:
        config: The configuration; its one output is of a `DenseDecoder`.
        class_names: Names of the classes, by index.
    """
    ((name, part),) = config.outputs.items()
    classes = type(part).from_dict({**part.to_dict(), "output_channels": len(class_names)})
    return config.replaced(outputs={name: classes}, id2label=dict(enumerate(class_names)))


def class_measures(num_classes: int, *, element: str) -> dict[str, Metric]:
    """Returns the mean intersection over union, that of each class; the accuracy of elements, and the classes' mean.

    All are of what is known, over all samples together.

    Args:
        num_classes: K.
        element: What has a class: "pixel".
    """
    metrics = require("torchmetrics.classification", extra="train")
    settings = {"num_classes": num_classes, "ignore_index": UNKNOWN, "validate_args": False}
    return {
        "mean_iou": metrics.MulticlassJaccardIndex(**settings),
        f"{element}_accuracy": metrics.MulticlassAccuracy(average="micro", **settings),
        "mean_accuracy": metrics.MulticlassAccuracy(average="macro", **settings),
        "iou": metrics.MulticlassJaccardIndex(average="none", **settings),
    }


def update_classes(measures: Mapping[str, Metric], output: Any, batch: Batch) -> None:
    """Compares the most probable classes of all elements that have one.

    Args:
        measures: As `class_measures` makes them.
        output: With `logits`, (B, K, …).
        batch: With `labels`, (B, …).
    """
    classes = output.logits.argmax(1)
    for metric in measures.values():
        metric.update(classes, batch["labels"])


def iou_per_class(class_names: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the intersection over union of each class by name, as a result of that name.

    Args:
        class_names: Names of the classes, by index.
        values: What `class_measures` found.
    """
    return {"iou_per_class": dict(zip(class_names, values["iou"].tolist(), strict=True))}


def class_parts(classes: NDArray[np.int64], labels: Mapping[int, str]) -> list[dict[str, Any]]:
    """Returns which part of a sample each class takes, the largest first, as JSON values.

    Args:
        classes: Class indices.
        labels: Names of the classes.
    """
    indices, counts = np.unique(classes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        {"label": labels[int(indices[place])], "part": float(counts[place] / classes.size)} for place in order
    ]


def segmented_line(results: Mapping[str, Any], *, element: str, noun: str) -> str:
    """Returns what matters most of a training or an evaluation, on one line.

    Args:
        results: What was found.
        element: As `class_measures`.
        noun: What samples are called.
    """
    split = results["split"]
    line = f"{split} mean IoU {as_number(results[f'{split}_mean_iou']):.3f}"
    line += f", {element} accuracy {as_number(results[f'{split}_{element}_accuracy']):.2%}"
    line += f" of {results[f'{split}_samples']} {noun}"
    if "train_seconds" in results:
        line += f"; trained in {results['train_seconds']:.1f} s, {results['parameters']:,} parameters"
    return line


def parts_line(prediction: Mapping[str, Any]) -> str:
    """Returns one line: the file, its classes with the part that each takes, and what was written."""
    classes = "  ".join(
        f"{printable(one['label'])} {one['part']:.1%}" for one in prediction["classes"][:_NUM_NAMED]
    )
    written = f"  written: {'  '.join(prediction['files'])}" if "files" in prediction else ""
    return f"{prediction['file']}: {classes}{written}"
