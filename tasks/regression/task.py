"""Measures, pictures and predictions of tasks that give numbers.

Shape legend: B batch, V numbers a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

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
    how a file becomes a row (`read`).
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
        """Compares all numbers of a batch, whichever of the V they are."""
        for metric in measures.values():
            metric.update(output.logits.float().flatten(), batch["labels"].float().flatten())

    def pictures(self, setup: Setup, results: Mapping[str, Any]) -> dict[str, Drawing]:
        """Predicted beside true numbers of up to 500 test rows, and what the latents attend to in the first."""
        test, model = setup.data.test, setup.model.eval()
        count, size = min(len(test), _NUM_DRAWN), setup.recipe.eval_batch_size
        true, predicted = [], []
        for start in range(0, count, size):
            rows = [test[index] for index in range(start, min(start + size, count))]
            batch = to_device(self.collate(rows, setup.processor), model.device)
            with torch.no_grad():
                predicted.append(model(**batch).logits.float().cpu().flatten())
            true.append(batch["labels"].float().cpu().flatten())
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
            For each file its name and `value`, a number, or a list of them if there are several.

        Raises:
            ValueError: A file cannot be read, or the weights are damaged.
        """
        results = []
        for file, values in self.outputs(loaded, inputs):
            numbers = values.tolist()
            results.append({"file": str(file), "value": numbers[0] if len(numbers) == 1 else numbers})
        return results

    def describe_prediction(self, prediction: Mapping[str, Any]) -> str:
        """Returns one line: the file and its numbers."""
        value = prediction["value"]
        numbers = value if isinstance(value, list) else [value]
        return f"{prediction['file']}: {' '.join(f'{number:.6g}' for number in numbers)}"
