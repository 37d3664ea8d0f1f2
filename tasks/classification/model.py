"""The model that names a class: any named inputs in, logits out.

Shape legend: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.single_output import SingleOutputModel
from perceiver_io.value_checks import looks_at
from perceiver_io.vector_decoders import ClassificationDecoder, PooledClassificationDecoder

__all__ = ["PerceiverIOForClassification", "check_class_labels"]


class PerceiverIOForClassification(SingleOutputModel):
    """A Perceiver IO with any inputs, whose one output is a class.

    Args:
        config: A configuration whose one output is a `ClassificationDecoder.Config` or a
            `PooledClassificationDecoder.Config`. Classes without names are called LABEL_0, LABEL_1, and so on.

    Raises:
        ValueError: There are several outputs, or it is another one, or there are not as many class names as classes.
    """

    def __init__(self, config: PerceiverIOConfig) -> None:
        for part in config.outputs.values():
            if not isinstance(part, (ClassificationDecoder.Config, PooledClassificationDecoder.Config)):
                raise ValueError(
                    "The output of a classifier is a ClassificationDecoder.Config or a "
                    f"PooledClassificationDecoder.Config, got {type(part).__qualname__}."
                )
            config.name_classes(part.num_classes)
        super().__init__(config)

    @property
    def num_classes(self) -> int:
        """K."""
        part = self.config.outputs[self.output_name]
        assert isinstance(part, (ClassificationDecoder.Config, PooledClassificationDecoder.Config))
        return part.num_classes

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
        logits_BK = self.perceiver(inputs, masks)[self.output_name]
        loss = None
        if labels is not None:
            check_class_labels(labels, batch_size=logits_BK.shape[0], num_classes=self.num_classes)
            loss = torch.nn.functional.cross_entropy(logits_BK, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits_BK)


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
