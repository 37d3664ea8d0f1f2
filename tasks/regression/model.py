"""The model that gives numbers: any named inputs in, one vector out.

Shape legend: B batch, V numbers a sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.model import PerceiverIO, PerceiverIOPreTrainedModel
from perceiver_io.vector_decoders import RegressionDecoder

__all__ = ["PerceiverIOForRegression", "RegressionOutput"]


@dataclass
class RegressionOutput(ModelOutput):
    """What `PerceiverIOForRegression` gives.

    Attributes:
        loss: Mean squared error, in units of the output's `scale`, if there were labels.
        logits: (B, V) the numbers, in their own units. The name is what `transformers` calls outputs.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


class PerceiverIOForRegression(PerceiverIOPreTrainedModel):
    """A Perceiver IO with any inputs, whose one output is a vector of numbers.

    Args:
        config: A configuration whose one output is a `RegressionDecoder.Config`.

    Raises:
        ValueError: There are several outputs, or it is another one.
    """

    def __init__(self, config: PerceiverIOConfig) -> None:
        parts = list(config.outputs.values())
        if len(parts) != 1 or not isinstance(parts[0], RegressionDecoder.Config):
            raise ValueError(
                "A model for regression has one output, a RegressionDecoder.Config, got "
                f"{ {name: type(part).__qualname__ for name, part in config.outputs.items()} }."
            )
        super().__init__(config)
        self.perceiver = PerceiverIO(config)
        self.output_name = next(iter(config.outputs))
        self.num_outputs = parts[0].num_outputs
        self.post_init()

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        labels: Tensor | None = None,
    ) -> RegressionOutput:
        """Gives numbers for a batch.

        Args:
            inputs: As `PerceiverIO`.
            masks: As `PerceiverIO`.
            labels: (B, V) or, for a single number, (B,): the true numbers; with them comes a loss.

        Returns:
            `logits` (B, V), and with labels `loss`.

        Raises:
            ValueError: An input does not fit its adapter, or the labels do not fit.
        """
        logits_BV = self.perceiver(inputs, masks)[self.output_name]
        loss = None
        if labels is not None:
            if not isinstance(labels, Tensor) or not labels.is_floating_point():
                given = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
                raise ValueError(f"labels must be a floating-point tensor, got {given}.")
            if labels.shape not in (logits_BV.shape, logits_BV.shape[:1] if self.num_outputs == 1 else None):
                raise ValueError(f"labels must be {tuple(logits_BV.shape)}, got {tuple(labels.shape)}.")
            decoder = self.perceiver.decoders[self.output_name]
            assert isinstance(decoder, RegressionDecoder)
            error_BV = (logits_BV - labels.reshape(logits_BV.shape)) / decoder.scale(logits_BV)
            loss = error_BV.square().mean()
            if not torch.compiler.is_compiling() and not labels.isfinite().all():
                raise ValueError(
                    "labels hold NaN or infinities. Leave out the samples whose numbers are unknown."
                )
        return RegressionOutput(loss=loss, logits=logits_BV)

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
