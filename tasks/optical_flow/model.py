"""The optical flow model: two frames in, the motion of each pixel out.

Shape legend: B batch, F image channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils.generic import ModelOutput

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.input_tools import bool_mask
from perceiver_io.model import PerceiverIO
from perceiver_io.pretrained import PerceiverIOPreTrainedModel
from perceiver_io.tasks.optical_flow.metrics import mean_end_point_error

__all__ = ["FLOW", "FRAMES", "OpticalFlowOutput", "PerceiverIOForOpticalFlow"]

FRAMES = "frames"
FLOW = "flow"


@dataclass
class OpticalFlowOutput(ModelOutput):
    """What `PerceiverIOForOpticalFlow` gives.

    Attributes:
        loss: Mean end-point error in pixels, if there were labels.
        flow: (B, 2, H, W) in pixels: how far each pixel of the first frame has moved to the right (channel 0) and down
            (channel 1) in the second.
    """

    loss: Tensor | None = None
    flow: Tensor | None = None


class PerceiverIOForOpticalFlow(PerceiverIOPreTrainedModel):
    """A Perceiver IO whose one input is a pair of frames and whose one output is their flow.

    Args:
        config: A configuration with the input "frames" and the output "flow", such as `config` of this package makes.

    Raises:
        ValueError: The inputs or outputs are others, or the output has not two channels.
    """

    main_input_name = "frames"

    def __init__(self, config: PerceiverIOConfig) -> None:
        if list(config.inputs) != [FRAMES] or list(config.outputs) != [FLOW]:
            raise ValueError(
                f"A model of optical flow has the input {FRAMES!r} and the output {FLOW!r}, got the inputs "
                f"{list(config.inputs)} and the outputs {list(config.outputs)}."
            )
        num_channels = getattr(config.outputs[FLOW], "output_channels", None)
        if num_channels != 2:
            raise ValueError(
                f"The output {FLOW!r} needs a decoder whose configuration has output_channels=2 (right, down), got "
                f"{type(config.outputs[FLOW]).__qualname__} with {num_channels}."
            )
        super().__init__(config)
        self.perceiver = PerceiverIO(config)
        self.post_init()

    @property
    def tile_size(self) -> tuple[int, int]:
        """Nominal height and width of the frames: what the model was made for, and what larger images are cut into."""
        height, width = self.config.inputs[FRAMES].size
        return height, width

    def forward(
        self,
        frames: Tensor,
        labels: Tensor | None = None,
        valid: Tensor | None = None,
        pixel_mask: Tensor | None = None,
    ) -> OpticalFlowOutput:
        """Estimates the flow from the first frames to the second.

        Args:
            frames: (B, 2, F, H, W) frames in [-1, 1], of any size. The positions stretch over another size than the
                nominal, and the flow with them; `OpticalFlowPipeline` cuts images into tiles instead, as published.
            labels: (B, 2, H, W) true flow in pixels; with it comes a loss.
            valid: (B, H, W) bool, True where the true flow is known; everywhere if None.
            pixel_mask: (B, H, W), bool or integers of 0 and 1: 1 where a pixel is real in both frames; everywhere if
                None.

        Returns:
            `flow` (B, 2, H, W) in pixels, and with labels `loss`, the mean end-point error over the pixels that are
            known and real.

        Raises:
            ValueError: The frames do not fit the adapter, or the labels do not fit the flow.
        """
        masks = None
        if pixel_mask is not None:
            pixel_mask = bool_mask(pixel_mask, name="pixel_mask")
            masks = {FRAMES: pixel_mask}
        flow_B2HW = self.perceiver({FRAMES: frames}, masks)[FLOW]
        loss = None
        if labels is not None:
            if not isinstance(labels, Tensor) or labels.shape != flow_B2HW.shape:
                found = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
                raise ValueError(f"labels must be the true flow {tuple(flow_B2HW.shape)}, got {found}.")
            known = pixel_mask if valid is None else valid if pixel_mask is None else valid & pixel_mask
            loss = mean_end_point_error(flow_B2HW, labels, known)
        elif valid is not None:
            raise ValueError(
                "valid says where labels are known, but there are no labels. Pass both, or neither."
            )
        return OpticalFlowOutput(loss=loss, flow=flow_B2HW)
