"""Models that name a class: the one for any named inputs, and what those of a field have in common with it.

Shape legend: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.single_output import SingleOutputModel
from perceiver_io.value_checks import looks_at

__all__ = ["Classifier", "PerceiverIOForClassification", "check_class_labels"]


class Classifier(SingleOutputModel):
    """A model whose one output is a class. A subclass says what its inputs are called.

    Args:
        config: A configuration whose one output has a decoder with `num_classes`. Classes without names are called
            LABEL_0, LABEL_1, and so on.

    Raises:
        ValueError: There are several outputs, or it is another one, or the inputs are not those of the class, or there
            are not as many class names as classes.
    """

    def __init__(self, config: PerceiverIOConfig) -> None:
        num_classes = 0
        for part in config.outputs.values():
            num_classes = getattr(part, "num_classes", 0)
            if not num_classes:
                raise ValueError(
                    "The output of a classifier needs a decoder whose configuration has num_classes, such as a "
                    f"ClassificationDecoder.Config, got {type(part).__qualname__}."
                )
            config.name_classes(num_classes)
        super().__init__(config)
        self.num_labels = num_classes

    @property
    def num_classes(self) -> int:
        """K."""
        return self.num_labels

    def _classified(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor | None] | None,
        labels: Tensor | None,
    ) -> tuple[Tensor | None, Tensor]:
        """The mean cross-entropy, if there are labels, and the logits (B, K)."""
        logits_BK = self._output(inputs, masks)
        if labels is None:
            return None, logits_BK
        check_class_labels(labels, batch_size=logits_BK.shape[0], num_classes=self.num_labels)
        return torch.nn.functional.cross_entropy(logits_BK, labels), logits_BK


class PerceiverIOForClassification(Classifier):
    """A Perceiver IO with any named inputs, whose one output is a class.

    Args:
        config: As `Classifier`.
    """

    @with_layer_outputs
    def forward(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Classifies a batch.

        Args:
            inputs: As `PerceiverIO`.
            masks: As `PerceiverIO`.
            labels: (B,) class indices, or (B, K) class probabilities; with them comes a loss.

        Returns:
            `logits` (B, K), and with labels `loss`, the mean cross-entropy.

        Raises:
            ValueError: An input does not fit its adapter, or the labels do not fit the classes.
        """
        loss, logits_BK = self._classified(inputs, masks, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits_BK)

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


def check_class_labels(labels: Tensor, *, batch_size: int, num_classes: int) -> None:
    """Checks labels of classes, their values too where values are checked; see `perceiver_io.check_values`.

    Args:
        labels: (B,) class indices, or (B, K) class probabilities.
        batch_size: B.
        num_classes: K.

    Raises:
        ValueError: The shape, the type or a value does not fit.
    """
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels must be a tensor, got {type(labels).__name__}.")
    soft = labels.is_floating_point()
    expected = (batch_size, num_classes) if soft else (batch_size,)
    if labels.shape != expected or not (soft or labels.dtype == torch.int64):
        raise ValueError(
            f"labels must be int64 class indices {(batch_size,)} or floating-point class probabilities "
            f"{(batch_size, num_classes)}, got {labels.dtype} {tuple(labels.shape)}."
        )
    if not looks_at(labels):
        return
    if soft:
        if not (labels >= 0).all():  # NaN is not
            raise ValueError("labels hold negative or NaN probabilities, expected numbers from 0 to 1.")
    elif ((labels < 0) | (labels >= num_classes)).any():
        raise ValueError(
            f"labels must be classes 0 to {num_classes - 1}, got {int(labels.min())} to {int(labels.max())}."
        )
