"""From two images of any size and kind to their flow.

Shape legend: B tiles at once, F image channels, H and W height and width of the images, h and w of a tile.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.adapters.frame_pair_processor import FramePairProcessor
from perceiver_io.tasks.optical_flow.model import FRAMES, PerceiverIOForOpticalFlow
from perceiver_io.tasks.optical_flow.tiling import compute_tiled, tile_starts

if TYPE_CHECKING:
    from PIL.Image import Image

    Frame = str | os.PathLike[str] | Image | NDArray[np.uint8] | Tensor

__all__ = ["OpticalFlowPipeline"]


class OpticalFlowPipeline:
    """Estimates the flow between two images, tile by tile.

    Images of the model's nominal size are one tile. Larger ones are cut into tiles that overlap, smaller ones are
    padded and the padding masked; see `compute_tiled`.

    Args:
        model: The model; it runs where it is, in its own precision, without dropout.
        batch_size: Tiles at once. More than one pays on an accelerator.
        min_overlap: How many pixels neighbouring tiles share at least; 20 as published.
        progress: Whether to show a bar on stderr if there are many tiles.

    Raises:
        ValueError: The batch size or the overlap is out of range, or the model takes neither grey nor RGB images.
    """

    def __init__(
        self,
        model: PerceiverIOForOpticalFlow,
        *,
        batch_size: int = 1,
        min_overlap: int = 20,
        progress: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        for side in model.tile_size:
            tile_starts(side, side, min_overlap=min_overlap)
        self.model = model
        self.batch_size = batch_size
        self.min_overlap = min_overlap
        self.progress = progress
        self.processor = FramePairProcessor(num_channels=model.config.inputs[FRAMES].image_channels)

    def __call__(self, first: Frame, second: Frame) -> Tensor:
        """Estimates how far each pixel of the first image has moved in the second.

        Args:
            first: A file's name, a PIL image of any mode, or uint8 values as a NumPy array (H, W) or (H, W, 3) or as a
                tensor (H, W) or (3, H, W).
            second: The same, of the same size.

        Returns:
            (2, H, W) float32 on the CPU, in pixels, to the right, and down.

        Raises:
            ValueError: Something is not an image or cannot be read, the sizes differ, or the flow is not finite.
        """
        frames_2FHW = self.normalized(self.pixels(first), self.pixels(second))
        training = self.model.training
        self.model.eval()
        try:
            flow_2HW = compute_tiled(
                self._flow,
                frames_2FHW,
                tile_size=self.model.tile_size,
                min_overlap=self.min_overlap,
                batch_size=self.batch_size,
                progress=self.progress,
            )
        finally:
            self.model.train(training)
        if not flow_2HW.isfinite().all():
            raise ValueError("The model gives values that are not numbers: its weights are damaged.")
        return flow_2HW

    def pixels(self, frame: Frame) -> Tensor:
        """As `FramePairProcessor.pixels`."""
        return self.processor.pixels(frame)

    def normalized(self, first: Tensor, second: Tensor) -> Tensor:
        """As `FramePairProcessor.normalized`, on the model's device and in its type."""
        return self.processor.normalized(first, second).to(self.model.device, self.model.dtype)

    @torch.inference_mode()
    def _flow(self, tiles_B2Fhw: Tensor, mask_Bhw: Tensor | None) -> Tensor:
        flow: Tensor = self.model(frames=tiles_B2Fhw, pixel_mask=mask_Bhw).flow
        return flow
