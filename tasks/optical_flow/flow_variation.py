"""Pairs of frames and their flow, cut and varied together at random for training.

Shape legend: F image channels, H height, W width, h and w those of what is cut out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver_io.component import ComponentConfig
from perceiver_io.extras import require
from perceiver_io.tasks.modalities.variation import check_fractions

__all__ = ["FlowAugmentation", "cut", "varied"]


@dataclass(frozen=True, kw_only=True)
class FlowAugmentation(ComponentConfig):
    """How training pairs are varied; where they are cut out is always random.

    Attributes:
        horizontal_flip: Mirror every second pair; the flow to the right becomes one to the left.
        vertical_flip: The same up and down.
        brightness: Largest change of brightness, contrast and saturation, the same in both frames: 0.2 is from 0.8 to
            1.2 times.
    """

    horizontal_flip: bool = True
    vertical_flip: bool = True
    brightness: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fractions(self, "brightness")


def cut(row: Mapping[str, Tensor], size: tuple[int, int], *, at_random: bool) -> dict[str, Tensor]:
    """Cuts a pair to a size: at a random place, or from the middle.

    Args:
        row: `first` and `second` (F, H, W), `flow` (2, H, W) and `valid` (H, W).
        size: Height and width.
        at_random: Whether the place is random.

    Raises:
        ValueError: The frames are smaller.
    """
    height, width = row["valid"].shape
    spare = height - size[0], width - size[1]
    if min(spare) < 0:
        raise ValueError(
            f"Frames of {width}x{height} pixels are smaller than what the model sees, {size[1]}x{size[0]}. Choose a "
            "smaller image_size, or take these pairs away."
        )
    top, left = (int(torch.randint(one + 1, ())) if at_random else one // 2 for one in spare)
    return {name: value[..., top : top + size[0], left : left + size[1]] for name, value in row.items()}


def varied(row: Mapping[str, Tensor], settings: FlowAugmentation) -> dict[str, Tensor]:
    """Varies a pair and its flow. Random numbers are of PyTorch's global generator.

    Args:
        row: As `cut`.
        settings: What is varied.
    """
    found = dict(row)
    for is_on, axis, channel in ((settings.horizontal_flip, -1, 0), (settings.vertical_flip, -2, 1)):
        if is_on and torch.rand(()) < 0.5:
            found = {name: value.flip(axis) for name, value in found.items()}
            found["flow"][channel] *= -1  # flip has made a copy
    if settings.brightness:
        jitter = require("torchvision.transforms.v2", extra="train").ColorJitter(*[settings.brightness] * 3)
        found["first"], found["second"] = jitter(torch.stack([found["first"], found["second"]]))
    return found
