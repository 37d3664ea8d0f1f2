"""The model that gives a class for each pixel, with the argument and output names of `transformers`.

Shape legend: B batch, F image channels, H height, W width, K classes, O points.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers.modeling_outputs import SemanticSegmenterOutput

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.tasks.dense.losses import class_loss
from perceiver_io.tasks.dense.model import DenseImageModel
from perceiver_io.tasks.dense.presets import IMAGE

__all__ = ["CLASSES", "PerceiverIOForSemanticSegmentation"]

CLASSES = "classes"


class PerceiverIOForSemanticSegmentation(DenseImageModel):
    """A Perceiver IO whose one input is an image and whose one output is a class for each pixel.

    Args:
        config: A configuration with the input "image", such as `config` of this package makes. Classes without names
            are called LABEL_0, LABEL_1, and so on.

    Raises:
        ValueError: The input or the output is another one.
    """

    pipeline_tag = "image-segmentation"

    def __init__(self, config: PerceiverIOConfig) -> None:
        for part in config.outputs.values():
            config.name_classes(getattr(part, "output_channels", 0))
        super().__init__(config)

    @with_layer_outputs
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        points: Tensor | None = None,
        grid: Sequence[int] | None = None,
    ) -> SemanticSegmenterOutput:
        """Gives classes for the pixels of images.

        Args:
            pixel_values: (B, F, H, W) images, as the image processor makes them.
            labels: Classes of the pixels, -100 where one is not known: (B, H, W) of the whole output, or (B, O) of
                the points. With them comes a loss.
            pixel_mask: (B, H, W), bool or integers of 0 and 1: 1 where a pixel is real.
            points: Pixels of the output that are wanted, as `PerceiverIO.decode` takes them; all if None. In training
                a few thousand at random are enough: a step then costs as much as these.
            grid: Height and width of the output, if it is to have another resolution than the model's own.

        Returns:
            `logits` (B, K, H, W), or (B, K, O) at points; and with labels `loss`, the cross-entropy, of a sample the
            mean over what is known, of the batch the mean over its samples.

        Raises:
            ValueError: The images do not fit the adapter, or the labels do not fit the output.
        """
        logits = self._decoded({IMAGE: pixel_values}, {IMAGE: pixel_mask}, points=points, grid=grid)
        if points is not None:
            logits = logits.transpose(1, 2)
        loss = None if labels is None else class_loss(logits, labels)
        return SemanticSegmenterOutput(loss=loss, logits=logits)
