"""The model that gives numbers: any named inputs in, one vector out, or one for each element of an input.

Shape legend: B batch, M elements of an input, V numbers a sample, or an element.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.single_output import SingleOutputModel
from perceiver_io.value_checks import looks_at
from perceiver_io.vector_decoders import RegressionDecoder

__all__ = ["PerceiverIOForRegression", "RegressionOutput"]


@dataclass
class RegressionOutput(ModelOutput):
    """What `PerceiverIOForRegression` gives.

    Attributes:
        loss: Mean squared error, in units of the output's `scale`, if there were labels.
        logits: (B, V) the numbers, or (B, M, V), in their own units. The name is what `transformers` calls outputs.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


class PerceiverIOForRegression(SingleOutputModel):
    """A Perceiver IO with any inputs, whose one output is numbers: of a sample, or of each element of an input.

    A `RegressionDecoder` gives one vector a sample. A `DenseDecoder` that asks with an input's own elements
    (`query_input`) gives one for each of them: a forecast at every weather station, however many there are. What it
    gives for padding means nothing.

    Args:
        config: A configuration whose one output is one of these.

    Raises:
        ValueError: There are several outputs, or it is another one.
    """

    def __init__(self, config: PerceiverIOConfig) -> None:
        for part in config.outputs.values():
            _check_output(part)
        super().__init__(config)
        (self.elements,) = (getattr(part, "query_input", None) for part in config.outputs.values())
        """The input whose elements get numbers each; None where a sample gets them."""

    @with_layer_outputs
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
            labels: The true numbers, in the shape of `logits`; that of a single number may lack its axis. With them
                comes a loss. Of elements, NaN is not known, and padding may be anything.

        Returns:
            `logits` (B, V), or (B, M, V) of an input's elements; and with labels `loss`, the mean over what is real and
            known, 0 if nothing is.

        Raises:
            ValueError: An input does not fit its adapter, or the labels do not fit.
        """
        encoded = self.perceiver.encode(inputs, self._masks(masks))
        logits = self.perceiver.decode(encoded)[self.output_name]
        if labels is None:
            return RegressionOutput(logits=logits)
        _check_labels(labels, logits)
        error = (labels.reshape(logits.shape) - logits) / self._scale(logits)
        if self.elements is None:
            if looks_at(labels) and not labels.isfinite().all():
                raise ValueError(
                    "labels hold NaN or infinities. Leave out the samples whose numbers are unknown."
                )
            return RegressionOutput(loss=error.square().mean(), logits=logits)
        is_known = ~error.isnan()
        if (mask_BM := encoded.byte_arrays[self.elements].mask) is not None:
            is_known = is_known & mask_BM.reshape(*logits.shape[:-1], 1)
        error = torch.where(is_known, error, 0)
        if looks_at(labels) and not error.isfinite().all():
            raise ValueError("labels hold infinities. What is not known is NaN.")
        return RegressionOutput(loss=error.square().sum() / is_known.sum().clamp(min=1), logits=logits)

    def _scale(self, like: Tensor) -> Tensor:
        return like.new_tensor(self.config.outputs[self.output_name].scale)

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


def _check_output(part: object) -> None:
    if isinstance(part, RegressionDecoder.Config):
        return
    if not isinstance(part, DenseDecoder.Config):
        raise ValueError(
            "The output of a regression is a RegressionDecoder.Config, or a DenseDecoder.Config with a query_input, "
            f"got {type(part).__qualname__}."
        )
    if part.query_input is None or part.channel_axis != -1 or part.patch_size is not None:
        raise ValueError(
            "A DenseDecoder of a regression asks at the elements of an input: it needs query_input, channel_axis=-1 "
            f"and no patch_size, got {part.query_input!r}, {part.channel_axis} and {part.patch_size}."
        )


def _check_labels(labels: Tensor, logits: Tensor) -> None:
    if not isinstance(labels, Tensor) or not labels.is_floating_point():
        given = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(f"labels must be a floating-point tensor, got {given}.")
    of_one = logits.shape[:-1] if logits.shape[-1] == 1 else logits.shape
    if labels.shape not in (logits.shape, of_one):
        raise ValueError(f"labels must be {tuple(logits.shape)}, got {tuple(labels.shape)}.")
