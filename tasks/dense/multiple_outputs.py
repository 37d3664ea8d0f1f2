"""The model that gives several outputs at once: maps, sounds, classes, numbers, each with its own loss and weight.

Shape legend: B batch, N latents, D latent channels, O points, A axes of an output's query grid, K classes, V values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.layer_outputs import PLAIN_OUTPUT, with_layer_outputs
from perceiver_io.model import PerceiverIO
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.tasks.dense.losses import Difference, absolute_difference
from perceiver_io.tasks.dense.output_losses import output_loss
from perceiver_io.zero_gradients import with_zero_gradients

__all__ = ["MultipleOutputs", "PerceiverIOForMultipleOutputs"]


@dataclass
class MultipleOutputs(ModelOutput):
    """What `PerceiverIOForMultipleOutputs` gives.

    Attributes:
        loss: Weighted sum of the losses of all outputs that were decoded and have labels; None if there are none.
        outputs: Outputs by name: whole, or (B, O, V) at points.
        losses: The loss of each output, before it is weighted.
        latents: (B, N, D).
    """

    loss: Tensor | None = None
    outputs: dict[str, Tensor] | None = None
    losses: dict[str, Tensor] | None = None
    latents: Tensor | None = None


class PerceiverIOForMultipleOutputs(PerceiverIOPreTrainedModel):
    """A Perceiver IO with any inputs and any outputs, all decoded from one encoding and learned together.

    The loss of an output follows from its labels: cross-entropy of classes, of a sample or of each element of a grid;
    of numbers the mean of `differences`. Of each sample what is known counts, and each sample of which anything is
    known as much as the others; so a loss at points that are drawn at random is unbiased.

    Args:
        config: Any configuration.

    Attributes:
        loss_weights: Weight of each output's loss, by name; 1 at first. It belongs to a training run and is not saved.
        differences: For outputs of numbers what two numbers are apart, by name: any function that gives numbers in
            the shape of its two arguments. Not saved either; absolute differences at first.
    """

    def __init__(self, config: PerceiverIOConfig) -> None:
        super().__init__(config)
        self.perceiver = PerceiverIO(config)
        self.loss_weights = dict.fromkeys(config.outputs, 1.0)
        self.differences: dict[str, Difference] = dict.fromkeys(config.outputs, absolute_difference)
        self.post_init()

    @with_layer_outputs
    def forward(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        labels: Mapping[str, Tensor] | None = None,
        *,
        known: Mapping[str, Tensor] | None = None,
        outputs: Iterable[str] | None = None,
        points: Mapping[str, Tensor | None] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        differences: Mapping[str, Difference] | None = None,
    ) -> MultipleOutputs:
        """Encodes a batch and decodes it, wholly or, as in training, at some points.

        Args:
            inputs: As `PerceiverIO.forward`.
            masks: As `PerceiverIO.forward`.
            labels: What outputs should be, by name, whole even where points are asked for. Classes of a sample: (B,)
                integers, or (B, K) probabilities. Classes of the elements of a grid: integers, the shape of the output
                without its channels. Numbers: floating point, the output's shape. `UNKNOWN` (-100) or NaN where
                something is not known. An output without labels has no loss.
            known: Besides, where labels are known, by name: bool, the shape of the output without its channels.
            outputs: Outputs that are wanted; if None, those that `points` names, or all.
            points: Points of outputs, by name, as `PerceiverIO.decode` takes them, but indices only where there are
                labels. None asks for the whole output.
            loss_weights: Weights of the losses by output, instead of the model's own.
            differences: What the losses of numbers are of, by output, instead of the model's own.

        Raises:
            ValueError: An input, a mask, labels or a point does not fit.
        """
        result = self.perceiver(inputs, masks, outputs=outputs, points=points, **PLAIN_OUTPUT)
        loss, losses = self._losses(
            result.outputs,
            labels or {},
            known=known,
            points=points,
            weights=loss_weights,
            differences=differences,
        )
        return MultipleOutputs(loss=loss, outputs=dict(result.outputs), losses=losses, latents=result.latents)

    def attention_maps(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        *,
        latents: Iterable[int] | None = None,
    ) -> list[AttentionMap]:
        """Returns the map of each cross-attend; see `PerceiverIO.attention_maps`.

        Args:
            inputs: As `forward`.
            masks: As `forward`.
            latents: Indices of the latents that are wanted; all if None.
        """
        return self.perceiver.attention_maps(inputs, masks, latents=latents)

    def _losses(
        self,
        outputs: Mapping[str, Tensor],
        labels: Mapping[str, Tensor],
        *,
        known: Mapping[str, Tensor] | None,
        points: Mapping[str, Tensor | None] | None,
        weights: Mapping[str, float] | None,
        differences: Mapping[str, Difference] | None,
    ) -> tuple[Tensor | None, dict[str, Tensor] | None]:
        """The weighted loss, and that of each output; None where nothing that was decoded has labels."""
        for what, given in (("labels", labels), ("known places", known or {})):
            if unknown := sorted(set(given) - set(self.config.outputs)):
                raise ValueError(
                    f"There are {what} of {unknown}, but only the outputs {list(self.config.outputs)}."
                )
        losses = {
            name: output_loss(
                name,
                prediction,
                labels[name],
                self.config.outputs[name],
                mask=(known or {}).get(name),
                points=(points or {}).get(name),
                difference=({**self.differences, **(differences or {})})[name],
            )
            for name, prediction in outputs.items()
            if name in labels
        }
        if not losses:
            return None, None
        weights = self.loss_weights if weights is None else weights
        if missing := sorted(set(losses) - set(weights)):
            raise ValueError(
                f"The losses of {missing} have no weight; there are weights of {sorted(weights)}."
            )
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        aside = (prediction for name, prediction in outputs.items() if name not in losses)
        return with_zero_gradients(total, aside), losses
