"""The image classifier with the argument and output names of `transformers`.

Shape legend: B batch, F image channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from transformers.modeling_outputs import ImageClassifierOutput

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.tasks.classification.model import Classifier

__all__ = ["IMAGE", "LABEL", "PerceiverIOForImageClassification"]

IMAGE = "image"
LABEL = "label"


class PerceiverIOForImageClassification(Classifier):
    """A Perceiver IO whose one input is an image and whose one output is a class.

    Args:
        config: A configuration with the input "image", such as `config` of this package makes. Classes without names
            are called LABEL_0, LABEL_1, and so on.
    """

    pipeline_tag = "image-classification"
    main_input_name = "pixel_values"
    arguments = {IMAGE: ("pixel_values", "pixel_mask")}  # noqa: RUF012 - a ClassVar of the base class

    @with_layer_outputs
    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, pixel_mask: Tensor | None = None
    ) -> ImageClassifierOutput:
        """Classifies images.

        Args:
            pixel_values: (B, F, H, W) images, as the image processor makes them.
            labels: (B,) class indices, or (B, K) class probabilities; with them comes a loss.
            pixel_mask: (B, H, W), bool or integers of 0 and 1, as image processors make it: 1 where a pixel is real.

        Returns:
            `logits` (B, K), and with labels `loss`, the mean cross-entropy.

        Raises:
            ValueError: The images do not fit the adapter, or the labels do not fit the classes.
        """
        loss, logits_BK = self._classified({IMAGE: pixel_values}, {IMAGE: pixel_mask}, labels)
        return ImageClassifierOutput(loss=loss, logits=logits_BK)

    def attention_maps(
        self, pixel_values: Tensor, pixel_mask: Tensor | None = None, *, latents: Iterable[int] | None = None
    ) -> list[AttentionMap]:
        """Returns the map of each cross-attend; see `PerceiverIO.attention_maps`.

        Args:
            pixel_values: As `forward`.
            pixel_mask: As `forward`.
            latents: Indices of the latents that are wanted; all if None.
        """
        return self._attention_maps({IMAGE: pixel_values}, {IMAGE: pixel_mask}, latents)
