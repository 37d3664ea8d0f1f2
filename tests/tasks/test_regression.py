"""What tasks that give numbers have in common, on numbers that can be added up by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import perceiver_io as pio
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.data import Splits, split_rows
from perceiver_io.running import TrainingRecipe
from perceiver_io.running.building import build
from perceiver_io.tasks.regression import RegressionTask
from perceiver_io.tasks.regression import task as regression_task


class Sums(RegressionTask):
    """How many ones are in a short text."""

    name = "sums"

    def data(self, recipe: TrainingRecipe) -> Splits:
        rows = torch.randint(2, (40, 5), generator=torch.Generator().manual_seed(0))
        return split_rows(list(rows), recipe, seed=recipe.seed)

    def config(self, recipe: TrainingRecipe, data: Splits) -> pio.PerceiverIOConfig:
        return pio.PerceiverIOConfig(
            inputs={"text": TextAdapter.Config(vocab_size=2, max_length=5, num_channels=8)},
            encoder=pio.EncoderConfig.from_dict({"num_latents": 3, "latent_channels": 8}),
            outputs={"sum": pio.RegressionDecoder.Config()},
        )

    def collate(self, rows: Sequence[torch.Tensor], processor: Any) -> dict[str, Any]:
        tokens = torch.stack(list(rows))
        return {"inputs": {"text": tokens}, "labels": tokens.sum(dim=1).float()}

    def read(self, file: str) -> torch.Tensor:
        raise ValueError(file)


def test_rows_to_draw_are_predicted_in_batches_of_an_evaluation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    task, recipe = Sums(), TrainingRecipe(eval_batch_size=4, device="cpu", test_fraction=0.25)
    setup = build(task, recipe, task.data(recipe))
    drawn: dict[str, np.ndarray[Any, Any]] = {}
    monkeypatch.setattr(
        regression_task,
        "draw_scatter",
        lambda true, predicted, path: drawn.update(true=np.asarray(true), predicted=np.asarray(predicted)),
    )
    sizes = []
    setup.model.register_forward_hook(lambda model, inputs, output: sizes.append(len(output.logits)))
    task.pictures(setup, {})["predictions.png"](tmp_path / "predictions.png")
    assert sizes == [4, 4, 2]
    rows = torch.stack([setup.data.test[index] for index in range(10)])
    assert drawn["true"].tolist() == rows.sum(dim=1).tolist()
    with torch.no_grad():
        expected = setup.model.eval()({"text": rows}).logits.flatten().numpy()
    np.testing.assert_allclose(drawn["predicted"], expected, rtol=1e-5, atol=1e-6)
