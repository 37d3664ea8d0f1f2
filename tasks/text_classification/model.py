"""The text classifier with the argument and output names of `transformers`.

Shape legend: B batch, T tokens, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.tasks.classification.model import Classifier

__all__ = ["TEXT", "PerceiverIOForSequenceClassification"]

TEXT = "text"


class PerceiverIOForSequenceClassification(Classifier):
    """A Perceiver IO whose one input is a text and whose one output is a class.

    Args:
        config: A configuration with the input "text", such as `config` of this package makes. Classes without names
            are called LABEL_0, LABEL_1, and so on.
    """

    pipeline_tag = "text-classification"
    main_input_name = "input_ids"
    arguments = {TEXT: ("input_ids", "attention_mask")}  # noqa: RUF012 - a ClassVar of the base class

    @with_layer_outputs
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Classifies texts.

        Args:
            input_ids: (B, T) token ids, as the tokenizer makes them.
            attention_mask: (B, T), bool or integers of 0 and 1: 1 where a token is real.
            labels: (B,) class indices, or (B, K) class probabilities; with them comes a loss.

        Returns:
            `logits` (B, K), and with labels `loss`, the mean cross-entropy.

        Raises:
            ValueError: The texts do not fit the adapter, or the labels do not fit the classes.
        """
        loss, logits_BK = self._classified({TEXT: input_ids}, {TEXT: attention_mask}, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits_BK)

    def attention_maps(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, latents: Iterable[int] | None = None
    ) -> list[AttentionMap]:
        """Returns the map of each cross-attend; see `PerceiverIO.attention_maps`.

        Args:
            input_ids: As `forward`.
            attention_mask: As `forward`.
            latents: Indices of the latents that are wanted; all if None.
        """
        return self._attention_maps({TEXT: input_ids}, {TEXT: attention_mask}, latents)
