"""The image classifier with the argument and output names of `transformers`.

Shape legend: B batch, F image channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers.modeling_outputs import ImageClassifierOutput

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.input_tools import bool_mask
from perceiver_io.model import PerceiverIO
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.tasks.classification.model import check_class_labels

__all__ = ["IMAGE", "LABEL", "PerceiverIOForImageClassification"]

IMAGE = "image"
LABEL = "label"


class PerceiverIOForImageClassification(PerceiverIOPreTrainedModel):
    """A Perceiver IO whose one input is an image and whose one output is a class.

    Args:
        config: A configuration with the input "image" and the output "label", such as `config` of this package
            makes. Classes without names are called LABEL_0, LABEL_1, and so on.

    Raises:
        ValueError: The inputs or outputs are others, or there are not as many class names as classes.
    """

    main_input_name = "pixel_values"

    def __init__(self, config: PerceiverIOConfig) -> None:
        if list(config.inputs) != [IMAGE] or list(config.outputs) != [LABEL]:
            raise ValueError(
                f"An image classifier has the input {IMAGE!r} and the output {LABEL!r}, got the inputs "
                f"{list(config.inputs)} and the outputs {list(config.outputs)}."
            )
        num_classes = getattr(config.outputs[LABEL], "num_classes", None)
        if num_classes is None:
            raise ValueError(
                f"The output {LABEL!r} of an image classifier needs a decoder whose configuration has num_classes, got "
                f"{type(config.outputs[LABEL]).__qualname__}."
            )
        config.name_classes(num_classes)
        super().__init__(config)
        self.perceiver = PerceiverIO(config)
        self.num_labels = num_classes
        self.post_init()

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
        masks = None if pixel_mask is None else {IMAGE: bool_mask(pixel_mask, name="pixel_mask")}
        logits_BK = self.perceiver({IMAGE: pixel_values}, masks)[LABEL]
        loss = None
        if labels is not None:
            check_class_labels(labels, batch_size=logits_BK.shape[0], num_classes=self.num_labels)
            loss = torch.nn.functional.cross_entropy(logits_BK, labels)
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
        masks = None if pixel_mask is None else {IMAGE: bool_mask(pixel_mask, name="pixel_mask")}
        return self.perceiver.attention_maps({IMAGE: pixel_values}, masks, latents=latents)
