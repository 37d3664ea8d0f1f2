"""The model that gives numbers: any named inputs in, one vector out.

Shape legend: B batch, V numbers a sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor
from transformers.utils.generic import ModelOutput

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.single_output import SingleOutputModel
from perceiver_io.value_checks import looks_at
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


class PerceiverIOForRegression(SingleOutputModel):
    """A Perceiver IO with any inputs, whose one output is a vector of numbers.

    Args:
        config: A configuration whose one output is a `RegressionDecoder.Config`.

    Raises:
        ValueError: There are several outputs, or it is another one.
    """

    def __init__(self, config: PerceiverIOConfig) -> None:
        for part in config.outputs.values():
            if not isinstance(part, RegressionDecoder.Config):
                raise ValueError(
                    f"The output of a regression is a RegressionDecoder.Config, got {type(part).__qualname__}."
                )
        super().__init__(config)

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
        logits_BV = self._output(inputs, masks)
        loss = None
        if labels is not None:
            if not isinstance(labels, Tensor) or not labels.is_floating_point():
                given = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
                raise ValueError(f"labels must be a floating-point tensor, got {given}.")
            decoder = self.perceiver.decoders[self.output_name]
            assert isinstance(decoder, RegressionDecoder)
            of_one = logits_BV.shape[:1] if decoder.config.num_outputs == 1 else logits_BV.shape
            if labels.shape not in (logits_BV.shape, of_one):
                raise ValueError(f"labels must be {tuple(logits_BV.shape)}, got {tuple(labels.shape)}.")
            error_BV = (logits_BV - labels.reshape(logits_BV.shape)) / decoder.scale(logits_BV)
            loss = error_BV.square().mean()
            if looks_at(labels) and not labels.isfinite().all():
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
            inputs: As `PerceiverIO`.
            masks: As `PerceiverIO`.
            latents: Indices of the latents that are wanted; all if None.
        """
        return self._attention_maps(inputs, masks, latents)
