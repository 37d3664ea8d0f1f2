"""Measures, pictures and predictions of tasks that give numbers.

Shape legend: B batch, M elements of an input, V numbers a sample, or an element; K of these that are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from perceiver_io.extras import require
from perceiver_io.pictures.attention_view import draw_view
from perceiver_io.pictures.scatter import draw_scatter
from perceiver_io.running import LoadedModel, PredictOptions, Setup
from perceiver_io.running.evaluator import to_device
from perceiver_io.running.row_task import RowTask
from perceiver_io.running.task import Batch, Drawing
from perceiver_io.tasks.regression.model import PerceiverIOForRegression

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["RegressionTask"]

_NUM_DRAWN = 500


class RegressionTask(RowTask):
    """A task whose model is a `PerceiverIOForRegression`.

    A subclass says what data there is (`data`), what the model is (`config`), how rows become a batch (`collate`), and
    how a file becomes a row (`read`). Where each element of an input has numbers, `labels` are NaN for what is not
    known and for padding.
    """

    model_class = PerceiverIOForRegression

    def measures(self, setup: Setup) -> dict[str, Metric]:
        """Mean absolute and root mean squared error, and the share of the variance that is explained."""
        metrics = require("torchmetrics", extra="train")
        return {
            "mae": metrics.MeanAbsoluteError(),
            "rmse": metrics.MeanSquaredError(squared=False),
            "r2": metrics.R2Score(),
        }

    def update(self, measures: Mapping[str, Metric], output: Any, batch: Batch) -> None:
        """Compares all numbers of a batch that are known, whichever of the V they are."""
        predicted_K, true_K = _known(output.logits, batch["labels"])
        for metric in measures.values():
            metric.update(predicted_K, true_K)

    def weight(self, batch: Batch) -> Tensor:
        """Returns how many numbers of a batch are known."""
        return (~batch["labels"].isnan()).sum()

    def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
        """Predicted beside true numbers of up to 500 test rows, and what the latents attend to in the first."""
        test, model = setup.data.test, setup.model.eval()
        count, size = min(len(test), _NUM_DRAWN), setup.recipe.eval_batch_size
        true, predicted = [], []
        for start in range(0, count, size):
            rows = [test[index] for index in range(start, min(start + size, count))]
            batch = to_device(self.collate(rows, setup.processor), model.device)
            with torch.no_grad():
                predicted_K, true_K = _known(model(**batch).logits, batch["labels"])
            predicted.append(predicted_K.cpu())
            true.append(true_K.cpu())
        view = self.row_view(model, setup.processor, test[0], "A test sample")
        return {
            "predictions.png": partial(draw_scatter, torch.cat(true), torch.cat(predicted)),
            "attention.png": partial(draw_view, view),
        }

    def predict(
        self, loaded: LoadedModel[Any], inputs: Sequence[str], options: PredictOptions
    ) -> list[dict[str, Any]]:
        """Gives the numbers of files.

        Args:
            loaded: The model.
            inputs: The files.
            options: Nothing of its own.

        Returns:
            For each file its name and as `value` a number, a list of them if there are several, or one of either
            for each element.

        Raises:
            ValueError: A file cannot be read, or the weights are damaged.
        """
        results = []
        # Elements of one file at a time: there is no padding among them.
        batch_size = None if loaded.model.elements is None else 1
        for file, values in self.outputs(loaded, inputs, batch_size=batch_size):
            numbers = values.squeeze(-1) if values.shape[-1] == 1 else values
            results.append({"file": str(file), "value": numbers.tolist()})
        return results

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns one line, the file and its numbers; and below it a line for each element."""
        value = prediction["value"]
        if isinstance(value, list) and value and isinstance(value[0], list):
            return "\n".join([f"{prediction['file']}:", *(f"  {_joined(numbers)}" for numbers in value)])
        return f"{prediction['file']}: {_joined(value)}"


def _joined(value: float | Sequence[float]) -> str:
    return " ".join(f"{number:.6g}" for number in (value if isinstance(value, Sequence) else [value]))


def _known(predicted: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers that are known, (K,), as the model gives them and as they are."""
    true = labels.float().flatten()
    is_known = ~true.isnan()
    return predicted.float().flatten()[is_known], true[is_known]
