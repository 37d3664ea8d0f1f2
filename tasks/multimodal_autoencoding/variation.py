"""Clips, varied at random for training. Random numbers are of PyTorch's global generator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from perceiver_io.component import ComponentConfig
from perceiver_io.media.clips import Clip
from perceiver_io.tasks.modalities.variation import uniform

__all__ = ["ClipAugmentation", "varied"]

_BOX = (0.25, 0.75)  # sides of a box, as parts of a frame's


@dataclass(frozen=True, kw_only=True)
class ClipAugmentation(ComponentConfig):
    """How training clips are varied; when they start is random anyway.

    Attributes:
        horizontal_flip: Mirror every second clip; not where left and right are classes.
        polarity: Turn every second sound upside down, which nobody hears.
        gain: Largest change of loudness either way, in decibels. What would be louder than 1 is cut.
        cut_mix: Part of the clips that get a box of the frames of another one of the same class and batch (CutMix, Yun
            et al., 2019): what is at one place then says little of what is at another, and each has to be looked at.
    """

    horizontal_flip: bool = False
    polarity: bool = True
    gain: float = 6.0
    cut_mix: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.cut_mix <= 1:
            raise ValueError(f"ClipAugmentation.cut_mix is {self.cut_mix}, expected a part from 0 to 1.")
        if not 0 <= self.gain < math.inf:
            raise ValueError(f"ClipAugmentation.gain is {self.gain}, expected decibels, 0 or more.")


def varied(rows: Sequence[Mapping[str, Any]], settings: ClipAugmentation) -> list[dict[str, Any]]:
    """Returns the rows of a batch with their clips varied.

    Args:
        rows: As `ClipRows` has them.
        settings: What is varied.
    """
    found = [{**row, "clip": _alone(row["clip"], settings)} for row in rows]
    mixed = []
    for index, row in enumerate(found):
        others = [
            one["clip"]
            for place, one in enumerate(found)
            if place != index and one.get("label") == row.get("label")
        ]
        clip = row["clip"]
        if settings.cut_mix and uniform(0, 1) < settings.cut_mix and others:
            clip = _with_box_of(clip, others[int(uniform(0, len(others)))])
        mixed.append({**row, "clip": clip})
    return mixed


def _alone(clip: Clip, settings: ClipAugmentation) -> Clip:
    if settings.horizontal_flip and uniform(0, 1) < 0.5:
        clip = replace(clip, frames=np.ascontiguousarray(clip.frames[:, :, ::-1]))
    if clip.audio is not None:
        factor = 10 ** (uniform(-settings.gain, settings.gain) / 20)
        if settings.polarity and uniform(0, 1) < 0.5:
            factor = -factor
        clip = replace(clip, audio=np.clip(clip.audio * np.float32(factor), -1, 1))
    return clip


def _with_box_of(clip: Clip, other: Clip) -> Clip:
    """A clip with a box of another one's frames, where both have frames."""
    frames = clip.frames.copy()
    real = min(clip.num_real_frames, other.num_real_frames)
    places = []
    for side in frames.shape[1:3]:
        length = max(1, round(side * uniform(*_BOX)))
        first = int(uniform(0, side - length + 1))
        places.append(slice(first, first + length))
    rows, columns = places
    frames[:real, rows, columns] = other.frames[:real, rows, columns]
    return replace(clip, frames=frames)
