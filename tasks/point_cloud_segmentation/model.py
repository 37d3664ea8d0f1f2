"""The model that gives a class for each point of a cloud.

Shape legend: B batch, P points, Q points that are asked for, C coordinates and further features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor
from transformers.utils.generic import ModelOutput

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.input_tools import bool_mask
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.tasks.dense.losses import class_loss
from perceiver_io.tasks.dense.model import DenseModel
from perceiver_io.tasks.point_cloud_classification.model import CLOUD

__all__ = ["CLASSES", "CLOUD", "PerceiverIOForPointCloudSegmentation", "PointCloudSegmentationOutput"]

CLASSES = "classes"


@dataclass
class PointCloudSegmentationOutput(ModelOutput):
    """What `PerceiverIOForPointCloudSegmentation` gives.

    Attributes:
        loss: Cross-entropy, if there were labels: of a sample the mean over its points that have one, of the batch the
            mean over its samples.
        logits: (B, K, P), or (B, K, Q) where points were asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


class PerceiverIOForPointCloudSegmentation(DenseModel):
    """A Perceiver IO whose one input is a point cloud and whose one output is a class for each of its points.

    Queries are the points themselves. They need not be those that the latents have read: of a cloud of a million
    points some thousands say what it is, and then each of the million is asked for.

    Args:
        config: A configuration with the input "cloud", such as `config` of this package makes. Classes without names
            are called LABEL_0, LABEL_1, and so on.

    Raises:
        ValueError: The input or the output is another one.
    """

    main_input_name = "points"
    arguments = {CLOUD: ("points", "points_mask")}  # noqa: RUF012 - a ClassVar of the base class

    def __init__(self, config: PerceiverIOConfig) -> None:
        for part in config.outputs.values():
            config.name_classes(getattr(part, "output_channels", 0))
            if getattr(part, "query_input", None) != CLOUD or getattr(part, "position", None) != "none":
                raise ValueError(
                    f"The queries of a {type(self).__name__} are the points of the input {CLOUD!r}: it needs a "
                    f"DenseDecoder.Config with query_input={CLOUD!r} and position='none', got {part}."
                )
        super().__init__(config)

    @with_layer_outputs
    def forward(
        self,
        points: Tensor,
        points_mask: Tensor | None = None,
        labels: Tensor | None = None,
        query_points: Tensor | None = None,
        query_mask: Tensor | None = None,
    ) -> PointCloudSegmentationOutput:
        """Gives classes for the points of clouds.

        Args:
            points: (B, P, C) points that the latents read, coordinates first, as the processor makes them.
            points_mask: (B, P), bool or integers of 0 and 1: 1 where there is a point.
            labels: (B, P), or (B, Q) where points are asked for: classes, -100 where one is not known and for padding.
                With them comes a loss.
            query_points: (B, Q, C) points whose classes are wanted; those that are read if None. In training some
                hundreds at random are enough: a step then costs as much as these.
            query_mask: (B, Q), as `points_mask`.

        Returns:
            `logits` (B, K, P), or (B, K, Q); those of padding mean nothing. With labels `loss`.

        Raises:
            ValueError: The clouds do not fit the adapter, or the labels do not fit the points.
        """
        encoded = self.perceiver.encode({CLOUD: points}, self._masks({CLOUD: points_mask}))
        if query_points is not None:
            mask_BQ = None if query_mask is None else bool_mask(query_mask, name="query_mask")
            asked = self.perceiver.adapters[CLOUD](query_points, mask_BQ)
            encoded = replace(encoded, byte_arrays={CLOUD: asked.in_type_of(encoded.latents)})
        elif query_mask is not None:
            raise ValueError("query_mask goes with query_points: points_mask is that of the points.")
        logits_BKQ = self.perceiver.decode(encoded)[self.output_name]
        loss = None if labels is None else class_loss(logits_BKQ, labels)
        return PointCloudSegmentationOutput(loss=loss, logits=logits_BKQ)

    def attention_maps(
        self,
        points: Tensor,
        points_mask: Tensor | None = None,
        query_points: Tensor | None = None,
        query_mask: Tensor | None = None,
        *,
        latents: Iterable[int] | None = None,
    ) -> list[AttentionMap]:
        """Returns the map of each cross-attend over the points that are read; see `PerceiverIO.attention_maps`.

        Args:
            points: As `forward`.
            points_mask: As `forward`.
            query_points: Not looked at, so that the arguments are those of `forward`.
            query_mask: Not looked at.
            latents: Indices of the latents that are wanted; all if None.
        """
        return self._attention_maps({CLOUD: points}, {CLOUD: points_mask}, latents)
