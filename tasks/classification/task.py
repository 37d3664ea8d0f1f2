"""Measures, pictures, predictions and fine-tuning of classifiers.

Shape legend: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.data import Splits
from perceiver_io.extras import require
from perceiver_io.pictures.attention_view import draw_view
from perceiver_io.pictures.confusion import draw_confusion
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.printable import printable
from perceiver_io.running import LoadedModel, PredictOptions, Setup
from perceiver_io.running.loaded_model import load_model
from perceiver_io.running.row_task import RowTask
from perceiver_io.running.task import Drawing, as_number
from perceiver_io.tasks.classification.model import PerceiverIOForClassification
from perceiver_io.tasks.classification.presets import LABEL
from perceiver_io.tasks.classification.report import per_class_report
from perceiver_io.vector_decoders import ClassificationDecoder

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["ClassPredictOptions", "ClassificationTask", "is_of_classes"]

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


class ClassificationTask(RowTask):
    """A task whose model has one output, of classes, and names them in `id2label`.

    A subclass says what data there is (`data`, with class names), what the model is (`config`), how rows become a batch
    (`collate`), and how a file becomes a row (`read`).
    """

    model_class: ClassVar[type[PerceiverIOPreTrainedModel]] = PerceiverIOForClassification
    options_class = ClassPredictOptions

    def trained(self, source: str | Path) -> LoadedModel[Any]:
        """Loads the model that a run is to start from: a classifier, or any model of the same inputs.

        Of one with other outputs, such as a masked autoencoder, the adapters and the encoder are taken over.
        """
        model = load_model(source, PerceiverIOPreTrainedModel, device="cpu", dtype=torch.float32)
        wanted = set(getattr(self.model_class, "arguments", {}))
        if not isinstance(model, self.model_class) and wanted and set(model.config.inputs) != wanted:
            raise ValueError(
                f"The model in {source} is a {type(model).__name__} of the inputs {list(model.config.inputs)}, "
                f"expected a {self.model_class.__name__}, or another model whose inputs are {sorted(wanted)}."
            )
        return LoadedModel(model=model, processor=self.load_processor(source), source=str(source))

    def fine_tuned(
        self, config: PerceiverIOConfig, processor: Any, recipe: Any, data: Splits
    ) -> tuple[PerceiverIOConfig, Any]:
        """Gives the output as many classes as the data has; other outputs than classes are left out."""
        changes: dict[str, Any] = {"id2label": dict(enumerate(data.class_names))}
        num_classes = len(data.class_names)
        if is_of_classes(config):
            ((name, part),) = config.outputs.items()
            changes["outputs"] = {name: type(part).from_dict({**part.to_dict(), "num_classes": num_classes})}
        else:
            changes["outputs"] = {LABEL: ClassificationDecoder.Config(num_classes=num_classes)}
            changes["shared_attention"] = None
            changes["packing"] = replace(config.packing, mask_probabilities=())
        return config.replaced(**changes), processor

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
        """The confusion matrix, and what the latents attend to in a test sample."""
        first, names = setup.data.test[0], setup.data.class_names
        counts = np.asarray(results["confusion"])
        view = self.row_view(setup.model.eval(), setup.processor, first, "A test sample")
        return {
            "confusion.png": partial(draw_confusion, counts, names),
            "attention.png": partial(draw_view, view),
        }

    def predict(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], options: ClassPredictOptions
    ) -> list[dict[str, Any]]:
        """Classifies files.

        Args:
            loaded: The classifier and its processor.
            inputs: The files.
            options: `top_k`: how many of the most probable classes to return.

        Returns:
            For each file its name and as `labels` class names with probabilities, the most probable first.

        Raises:
            ValueError: A file cannot be read, or the weights are damaged.
        """
        names: Mapping[int, str] = loaded.model.config.id2label
        results = []
        for file, logits_K in self.outputs(loaded, inputs):
            probabilities, classes = logits_K.softmax(-1).topk(min(options.top_k, len(logits_K)))
            labels = [
                {"label": names[index], "probability": p}
                for index, p in zip(classes.tolist(), probabilities.tolist(), strict=True)
            ]
            results.append({"file": str(file), "labels": labels})
        return results

    def describe_results(self, results: Mapping[str, Any]) -> str:
        """Returns what matters most, on one line."""
        split = results["split"]
        line = f"{split} accuracy {as_number(results[f'{split}_accuracy']):.2%}"
        line += f" of {results[f'{split}_samples']} samples"
        shown = {"accuracy", "samples", f"top{_TOP}_accuracy"}
        for key, value in results.items():
            name = key.removeprefix(f"{split}_")
            if key != name and name not in shown:
                line += f", {name.replace('_', ' ')} {as_number(value):.4f}"
        if "train_seconds" in results:
            line += f"; trained in {results['train_seconds']:.1f} s, {results['parameters']:,} parameters"
        return line

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns one line: the file, and its classes with probabilities."""
        labels = "  ".join(
            f"{printable(one['label'])} {one['probability']:.1%}" for one in prediction["labels"]
        )
        return f"{prediction['file']}: {labels}"


def is_of_classes(config: PerceiverIOConfig) -> bool:
    """Returns whether the one output of a model is a class."""
    return len(config.outputs) == 1 and all(hasattr(part, "num_classes") for part in config.outputs.values())
