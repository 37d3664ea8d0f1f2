"""The optical flow model: two frames in, the motion of each pixel out.

Shape legend: B batch, F image channels, H height, W width, O points.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.input_tools import bool_mask
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.tasks.dense.losses import mean_of_samples
from perceiver_io.tasks.dense.model import DenseModel
from perceiver_io.value_checks import looks_at

__all__ = ["FLOW", "FRAMES", "OpticalFlowOutput", "PerceiverIOForOpticalFlow"]

FRAMES = "frames"
FLOW = "flow"


@dataclass
class OpticalFlowOutput(ModelOutput):
    """What `PerceiverIOForOpticalFlow` gives.

    Attributes:
        loss: End-point error in pixels, if there were labels: the mean over what is known of a sample, then over the
            samples.
        flow: (B, 2, H, W) in pixels: how far each pixel of the first frame has moved to the right (channel 0) and down
            (channel 1) in the second. (B, O, 2) at points.
    """

    loss: Tensor | None = None
    flow: Tensor | None = None


class PerceiverIOForOpticalFlow(DenseModel):
    """A Perceiver IO whose one input is a pair of frames and whose one output is their flow.

    Args:
        config: A configuration with the input "frames" and the output "flow", such as `config` of this package makes.

    Raises:
        ValueError: The inputs or outputs are others, or the output has not two channels.
    """

    main_input_name = "frames"
    arguments = {FRAMES: ("frames", "pixel_mask")}  # noqa: RUF012 - a ClassVar of the base class

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

    @property
    def tile_size(self) -> tuple[int, int]:
        """Nominal height and width of the frames: what the model was made for, and what larger images are cut into."""
        height, width = self.config.inputs[FRAMES].size
        return height, width

    @with_layer_outputs
    def forward(
        self,
        frames: Tensor,
        labels: Tensor | None = None,
        valid: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        points: Tensor | None = None,
        grid: Sequence[int] | None = None,
    ) -> OpticalFlowOutput:
        """Estimates the flow from the first frames to the second.

        Args:
            frames: (B, 2, F, H, W) frames in [-1, 1], of any size. The positions stretch over another size than the
                nominal, and the flow with them; `OpticalFlowPipeline` cuts images into tiles instead, as published.
            labels: The true flow in pixels, (B, 2, H, W) of the whole output, or (B, O, 2) of the points; with it comes
                a loss.
            valid: (B, H, W) or (B, O) bool, True where the true flow is known; everywhere if None.
            pixel_mask: (B, H, W), bool or integers of 0 and 1: 1 where a pixel is real in both frames; everywhere if
                None.
            points: Pixels of the output that are wanted, as `PerceiverIO.decode` takes them; all if None. In training
                a few hundred at random are enough: a step then costs as much as these.
            grid: Height and width of the output, if it is to have another resolution than the model's own; the flow is
                still in pixels of the frames.

        Returns:
            `flow` in pixels, (B, 2, H, W), or (B, O, 2) at points; and with labels `loss`, the end-point error, of a
            sample the mean over what is known, of the batch that over its samples. What is masked is not known, unless
            points or a grid say that labels are not those of the frames' pixels: `valid` alone counts then.

        Raises:
            ValueError: The frames do not fit the adapter, or the labels do not fit the flow.
        """
        flow = self._decoded({FRAMES: frames}, {FRAMES: pixel_mask}, points=points, grid=grid)
        if labels is None:
            if valid is not None:
                raise ValueError(
                    "valid says where labels are known, but there are no labels. Pass both, or neither."
                )
            return OpticalFlowOutput(flow=flow)
        channel_axis = 1 if points is None else -1
        if pixel_mask is not None and points is None and grid is None:
            is_real_BHW = bool_mask(pixel_mask, name="pixel_mask")
            valid = is_real_BHW if valid is None else _checked(valid, flow, channel_axis) & is_real_BHW
        return OpticalFlowOutput(loss=_loss(flow, labels, valid, channel_axis=channel_axis), flow=flow)

    def attention_maps(
        self, frames: Tensor, pixel_mask: Tensor | None = None, *, latents: Iterable[int] | None = None
    ) -> list[AttentionMap]:
        """Returns the map of each cross-attend; see `PerceiverIO.attention_maps`.

        Args:
            frames: As `forward`.
            pixel_mask: As `forward`.
            latents: Indices of the latents that are wanted; all if None.
        """
        return self._attention_maps({FRAMES: frames}, {FRAMES: pixel_mask}, latents)


def _loss(flow: Tensor, labels: Tensor, valid: Tensor | None, *, channel_axis: int) -> Tensor:
    if not isinstance(labels, Tensor) or labels.shape != flow.shape:
        found = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(f"labels must be the true flow {tuple(flow.shape)}, got {found}.")
    if valid is None:
        valid = labels.new_ones((), dtype=torch.bool).expand(labels.select(channel_axis, 0).shape)
    valid = _checked(valid, flow, channel_axis)
    # Both, so that no NaN gets into the gradient.
    known = valid.unsqueeze(channel_axis)
    flow, labels = torch.where(known, flow, 0), torch.where(known, labels, 0)
    if looks_at(labels) and not labels.isfinite().all():
        raise ValueError("The true flow is not finite everywhere: mark what is unknown as False in valid.")
    return mean_of_samples(torch.linalg.vector_norm(flow - labels, dim=channel_axis), valid)


def _checked(valid: Tensor, flow: Tensor, channel_axis: int) -> Tensor:
    expected = tuple(flow.select(channel_axis, 0).shape)
    if not isinstance(valid, Tensor) or valid.dtype != torch.bool or tuple(valid.shape) != expected:
        found = f"{valid.dtype} {tuple(valid.shape)}" if isinstance(valid, Tensor) else type(valid).__name__
        raise ValueError(f"valid must be bool {expected} (True = known), got {found}.")
    return valid
