"""The audio classifier with the argument and output names of `transformers`.

Shape legend: B batch, S samples, F channels or mel bands, T time frames, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.tasks.classification.model import Classifier

__all__ = ["AUDIO", "PerceiverIOForAudioClassification"]

AUDIO = "audio"


class PerceiverIOForAudioClassification(Classifier):
    """A Perceiver IO whose one input is sound and whose one output is a class.

    Args:
        config: A configuration with the input "audio", such as `config` of this package makes. Classes without names
            are called LABEL_0, LABEL_1, and so on.
    """

    pipeline_tag = "audio-classification"
    main_input_name = "input_values"
    arguments = {AUDIO: ("input_values", "attention_mask")}  # noqa: RUF012 - a ClassVar of the base class

    @with_layer_outputs
    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Classifies sounds.

        Args:
            input_values: (B, S) or (B, F, S) samples, or (B, T, F) log-mel, as the feature extractor makes them.
            attention_mask: (B, S) or (B, T), bool or integers of 0 and 1: 1 where a sample or frame is real.
            labels: (B,) class indices, or (B, K) class probabilities; with them comes a loss.

        Returns:
            `logits` (B, K), and with labels `loss`, the mean cross-entropy.

        Raises:
            ValueError: The sounds do not fit the adapter, or the labels do not fit the classes.
        """
        loss, logits_BK = self._classified({AUDIO: input_values}, {AUDIO: attention_mask}, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits_BK)

    def attention_maps(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        *,
        latents: Iterable[int] | None = None,
    ) -> list[AttentionMap]:
        """Returns the map of each cross-attend; see `PerceiverIO.attention_maps`.

        Args:
            input_values: As `forward`.
            attention_mask: As `forward`.
            latents: Indices of the latents that are wanted; all if None.
        """
        return self._attention_maps({AUDIO: input_values}, {AUDIO: attention_mask}, latents)
