"""The model that gives a number for each pixel, with the argument and output names of `transformers`.

Shape legend: B batch, F image channels, H height, W width, O points.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers.modeling_outputs import DepthEstimatorOutput

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.tasks.dense.losses import absolute_loss
from perceiver_io.tasks.dense.model import DenseImageModel
from perceiver_io.tasks.dense.presets import IMAGE

__all__ = ["DEPTH", "PerceiverIOForDepthEstimation"]

DEPTH = "depth"


class PerceiverIOForDepthEstimation(DenseImageModel):
    """A Perceiver IO whose one input is an image and whose one output is a number for each pixel, such as its depth.

    Args:
        config: A configuration with the input "image", such as `config` of this package makes; the output's `offset`
            and `scale` are about the mean and the deviation of the numbers.

    Raises:
        ValueError: The input or the output is another one, or the output has more than one channel.
    """

    pipeline_tag = "depth-estimation"

    def __init__(self, config: PerceiverIOConfig) -> None:
        for part in config.outputs.values():
            axis = getattr(part, "channel_axis", None)
            if axis is not None:
                raise ValueError(
                    "A pixel has one depth: the output needs output_channels=1 and channel_axis=None, got "
                    f"{type(part).__qualname__} with channel_axis={axis}."
                )
        super().__init__(config)

    @with_layer_outputs
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        points: Tensor | None = None,
        grid: Sequence[int] | None = None,
    ) -> DepthEstimatorOutput:
        """Gives a number for each pixel of images.

        Args:
            pixel_values: (B, F, H, W) images, as the image processor makes them.
            labels: The true numbers, NaN where one is not known: (B, H, W) of the whole output, or (B, O) of the
                points. With them comes a loss.
            pixel_mask: (B, H, W), bool or integers of 0 and 1: 1 where a pixel is real.
            points: Pixels of the output that are wanted, as `PerceiverIO.decode` takes them; all if None. In training
                a few thousand at random are enough: a step then costs as much as these.
            grid: Height and width of the output, if it is to have another resolution than the model's own.

        Returns:
            `predicted_depth` (B, H, W), or (B, O) at points; and with labels `loss`, the mean absolute difference in
            units of the output's `scale`: of a sample the mean over what is known, of the batch that over its samples.

        Raises:
            ValueError: The images do not fit the adapter, or the labels do not fit the output.
        """
        depth = self._decoded({IMAGE: pixel_values}, {IMAGE: pixel_mask}, points=points, grid=grid)
        if points is not None:
            depth = depth.squeeze(-1)
        loss = None
        if labels is not None:
            loss = absolute_loss(depth, labels) / self.config.outputs[self.output_name].scale
        return DepthEstimatorOutput(loss=loss, predicted_depth=depth)
