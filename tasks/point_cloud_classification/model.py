"""The point cloud classifier with the argument and output names of its field.

Shape legend: B batch, P points, A axes, F further features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.tasks.classification.model import Classifier

__all__ = ["CLOUD", "PerceiverIOForPointCloudClassification"]

CLOUD = "cloud"


class PerceiverIOForPointCloudClassification(Classifier):
    """A Perceiver IO whose one input is a point cloud and whose one output is a class.

    Args:
        config: A configuration with the input "cloud", such as `config` of this package makes. Classes without names
            are called LABEL_0, LABEL_1, and so on.
    """

    main_input_name = "points"
    arguments = {CLOUD: ("points", "points_mask")}  # noqa: RUF012 - a ClassVar of the base class

    @with_layer_outputs
    def forward(
        self, points: Tensor, points_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Classifies clouds.

        Args:
            points: (B, P, A + F) points, coordinates first, as the processor makes them.
            points_mask: (B, P), bool or integers of 0 and 1: 1 where there is a point.
            labels: (B,) class indices, or (B, K) class probabilities; with them comes a loss.

        Returns:
            `logits` (B, K), and with labels `loss`, the mean cross-entropy.

        Raises:
            ValueError: The clouds do not fit the adapter, or the labels do not fit the classes.
        """
        loss, logits_BK = self._classified({CLOUD: points}, {CLOUD: points_mask}, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits_BK)

    def attention_maps(
        self, points: Tensor, points_mask: Tensor | None = None, *, latents: Iterable[int] | None = None
    ) -> list[AttentionMap]:
        """Returns the map of each cross-attend; see `PerceiverIO.attention_maps`.

        Args:
            points: As `forward`.
            points_mask: As `forward`.
            latents: Indices of the latents that are wanted; all if None.
        """
        return self._attention_maps({CLOUD: points}, {CLOUD: points_mask}, latents)
