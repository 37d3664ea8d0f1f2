"""The model that gives an image back from its latents.

Shape legend: B batch, F image channels, H height, W width, O points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers.utils.generic import ModelOutput

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.tasks.dense.losses import squared_loss
from perceiver_io.tasks.dense.model import DenseImageModel
from perceiver_io.tasks.dense.presets import IMAGE

__all__ = ["ImageAutoencoderOutput", "PerceiverIOForImageAutoencoding"]


@dataclass
class ImageAutoencoderOutput(ModelOutput):
    """What an image autoencoder gives.

    Attributes:
        loss: Mean squared difference; only where there are labels.
        reconstruction: (B, F, H, W), or (B, O, F) at points.
    """

    loss: Tensor | None = None
    reconstruction: Tensor | None = None


class PerceiverIOForImageAutoencoding(DenseImageModel):
    """A Perceiver IO whose one input is an image and whose one output is that image, made of the latents alone.

    Args:
        config: A configuration with the input "image", such as `config` of this package makes.

    Raises:
        ValueError: The input or the output is another one, or queries are made of the image itself.
    """

    def __init__(self, config: PerceiverIOConfig) -> None:
        for part in config.outputs.values():
            if getattr(part, "query_input", None) is not None:
                raise ValueError(
                    f"The queries of an autoencoder are positions, but those of this output are made of the input "
                    f"{getattr(part, 'query_input', None)!r}: the image would not have to pass through the latents."
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
    ) -> ImageAutoencoderOutput:
        """Gives images back.

        Args:
            pixel_values: (B, F, H, W) images, as the image processor makes them.
            labels: What should come out, NaN where that is not known: `pixel_values` themselves, (B, F, H, W), or
                (B, O, F) of the points. With them comes a loss.
            pixel_mask: (B, H, W), bool or integers of 0 and 1: 1 where a pixel is real.
            points: Pixels of the output that are wanted, as `PerceiverIO.decode` takes them; all if None.
            grid: Height and width of the output, if it is to have another resolution than the model's own.

        Returns:
            `reconstruction`, and with labels `loss`, which is of a sample the mean over what is known, of the batch
            that over its samples.

        Raises:
            ValueError: The images do not fit the adapter, or the labels do not fit the output.
        """
        made = self._decoded({IMAGE: pixel_values}, {IMAGE: pixel_mask}, points=points, grid=grid)
        loss = None if labels is None else squared_loss(made, labels)
        return ImageAutoencoderOutput(loss=loss, reconstruction=made)
