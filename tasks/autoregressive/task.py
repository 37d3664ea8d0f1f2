"""What tasks that continue sequences have in common: what they measure, and what is predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.running import PredictOptions, Setup, TrainableTask, TrainingRecipe
from perceiver_io.running.measures import mean_metric
from perceiver_io.running.task import Batch
from perceiver_io.tasks.autoregressive.collator import WindowCollator
from perceiver_io.tasks.autoregressive.model import IGNORED, PerceiverARForCausalLM
from perceiver_io.tasks.autoregressive.options import GenerateOptions
from perceiver_io.tasks.autoregressive.recipe import AutoregressiveRecipe

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["AutoregressiveTask"]


class AutoregressiveTask(TrainableTask):
    """A task whose model says what follows: its batches have `input_ids` and `labels`, -100 where nothing is said.

    Attributes:
        unit: What the loss of a token is measured in.
    """

    model_class: ClassVar[type[PerceiverIOPreTrainedModel]] = PerceiverARForCausalLM
    recipe_class: ClassVar[type[TrainingRecipe]] = AutoregressiveRecipe
    options_class: ClassVar[type[PredictOptions]] = GenerateOptions
    unit: ClassVar[Literal["bits", "nats"]] = "bits"

    def measures(self, setup: Setup) -> dict[str, Metric]:
        """Bits or nats a token, and the share of tokens that are guessed."""
        return {
            self.unit: mean_metric(higher_is_better=False),
            "accuracy": mean_metric(higher_is_better=True),
        }

    def update(self, measures: Mapping[str, Metric], output: Any, batch: Batch) -> None:
        """Adds what a batch predicts."""
        logits_BNV = output.logits[:, :-1]
        targets_BN = batch["labels"][:, batch["labels"].shape[1] - logits_BNV.shape[1] :]
        counts = targets_BN != IGNORED
        scale = math.log(2) if self.unit == "bits" else 1.0
        measures[self.unit].update(output.loss.float() / scale, weight=self.weight(batch))
        measures["accuracy"].update((logits_BNV.argmax(-1) == targets_BN)[counts])

    def weight(self, batch: Batch) -> torch.Tensor:
        """The number of tokens that are predicted."""
        count: torch.Tensor = (batch["labels"][:, 1:] != IGNORED).sum()
        return count

    def window_collator(self, setup: Setup, *, train: bool, pad_id: int) -> WindowCollator:
        """Returns what makes batches of windows.

        Args:
            setup: The run.
            train: Whether they are to be trained on.
            pad_id: What stands before windows that are shorter than others.

        Raises:
            ValueError: The windows are longer than what the model reads, or learn from more tokens than it has latents
                for.
        """
        recipe, model = setup.recipe, setup.model
        for name, of_model in (("max_length", model.max_length), ("num_latents", model.num_latents)):
            if getattr(recipe, name) > of_model:
                raise ValueError(
                    f"{name} is {getattr(recipe, name)}, but that of the model is {of_model}: choose one up to that."
                )
        return WindowCollator(
            pad_id=pad_id,
            num_latents=recipe.num_latents,
            train=train,
            short_share=recipe.short_windows,
        )
