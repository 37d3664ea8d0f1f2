"""The video classifier with the argument and output names of `transformers`.

Shape legend: B batch, T frames, F image channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.tasks.classification.model import Classifier

__all__ = ["VIDEO", "PerceiverIOForVideoClassification"]

VIDEO = "video"


class PerceiverIOForVideoClassification(Classifier):
    """A Perceiver IO whose one input is a video and whose one output is a class.

    Args:
        config: A configuration with the input "video", such as `config` of this package makes. Classes without names
            are called LABEL_0, LABEL_1, and so on.
    """

    pipeline_tag = "video-classification"
    main_input_name = "pixel_values"
    arguments = {VIDEO: ("pixel_values", "pixel_mask")}  # noqa: RUF012 - a ClassVar of the base class

    def __init__(self, config: PerceiverIOConfig) -> None:
        super().__init__(config)
        # So many frames do pipelines of transformers ask a video processor for. It is no setting, and not saved.
        self.config.num_frames = config.inputs[VIDEO].to_dict().get("size", [None])[0]

    @with_layer_outputs
    def forward(
        self, pixel_values: Tensor, pixel_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Classifies videos.

        Args:
            pixel_values: (B, T, F, H, W) frames, as the video processor makes them.
            pixel_mask: (B, T, H, W), bool or integers of 0 and 1: 1 where a pixel is real.
            labels: (B,) class indices, or (B, K) class probabilities; with them comes a loss.

        Returns:
            `logits` (B, K), and with labels `loss`, the mean cross-entropy.

        Raises:
            ValueError: The videos do not fit the adapter, or the labels do not fit the classes.
        """
        loss, logits_BK = self._classified({VIDEO: pixel_values}, {VIDEO: pixel_mask}, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits_BK)

    def attention_maps(
        self, pixel_values: Tensor, pixel_mask: Tensor | None = None, *, latents: Iterable[int] | None = None
    ) -> list[AttentionMap]:
        """Returns the map of each cross-attend; see `PerceiverIO.attention_maps`.

        Args:
            pixel_values: As `forward`.
            pixel_mask: As `forward`.
            latents: Indices of the latents that are wanted; all if None.
        """
        return self._attention_maps({VIDEO: pixel_values}, {VIDEO: pixel_mask}, latents)
