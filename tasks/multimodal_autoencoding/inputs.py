"""Clips as the model takes them.

Shape legend: B batch, T frames, H height, W width, S samples, O points of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from perceiver_io.component import ComponentConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.drawn_points import draw_points
from perceiver_io.media.clips import Clip
from perceiver_io.tasks.dense.output_losses import query_values
from perceiver_io.tasks.multimodal_autoencoding.model import AUDIO, IMAGE

__all__ = ["clip_inputs", "drawn_queries"]


def clip_inputs(clips: Sequence[Clip]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns inputs and masks by name.

    Sound that no clip has is no input; where some have it, the others' is masked. What is all real has no mask.

    Args:
        clips: Clips of one format.
    """
    frames_BTHWF = torch.from_numpy(np.stack([clip.frames for clip in clips]))
    inputs = {IMAGE: frames_BTHWF.movedim(-1, 2).float() / 255}
    masks: dict[str, Tensor] = {}
    num_frames, height, width = frames_BTHWF.shape[1:4]
    real_BT = _first([clip.num_real_frames for clip in clips], num_frames)
    if not real_BT.all():
        masks[IMAGE] = real_BT[:, :, None, None].expand(-1, -1, height, width)
    sounds = [clip.audio for clip in clips if clip.audio is not None]
    if sounds:
        silence = np.zeros_like(sounds[0])
        heard = [silence if clip.audio is None else clip.audio for clip in clips]
        inputs[AUDIO] = torch.from_numpy(np.stack(heard))
        counts = [0 if clip.audio is None else clip.num_real_samples for clip in clips]
        real_BS = _first(counts, len(silence))
        if not real_BS.all():
            masks[AUDIO] = real_BS
    return inputs, masks


def drawn_queries(
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    outputs: Mapping[str, ComponentConfig],
    numbers: Mapping[str, int],
) -> dict[str, Tensor | None]:
    """Draws output queries of each sample, for `points`; None, the whole output, for those that have no grid.

    Each query of which anything is known is as likely as any other. Samples of which fewer are known than of others are
    filled up with one that is not.

    Args:
        inputs: As `clip_inputs`.
        masks: As `clip_inputs`.
        outputs: The configurations of the model's outputs.
        numbers: How many queries of an output, by name.
    """
    points: dict[str, Tensor | None] = {}
    for name, config in outputs.items():
        if not isinstance(config, DenseDecoder.Config):
            points[name] = None
        elif name in inputs:
            known_BOV = _known_values(name, inputs[name], masks.get(name), config)
            grid = known_BOV.shape[1:-1]
            known_BM = known_BOV.any(-1).flatten(1)
            points_BO, is_drawn_BO = draw_points(known_BM, numbers[name])
            points_BO = torch.where(is_drawn_BO, points_BO, known_BM.int().argmin(1, keepdim=True))
            points[name] = torch.stack(torch.unravel_index(points_BO, grid), dim=-1)
    return points


def _known_values(name: str, x: Tensor, mask: Tensor | None, config: DenseDecoder.Config) -> Tensor:
    """Which of the values of each query are known."""
    place = config.channel_axis
    of_one = x if place is None else x.select(place + 1 if place >= 0 else place, 0)
    known = torch.ones_like(of_one, dtype=torch.bool) if mask is None else mask
    return query_values(name, known, replace(config, output_channels=1, channel_axis=None))


def _first(counts: Sequence[int], length: int) -> Tensor:
    """(B, length) bool, True for so many of the first."""
    return torch.arange(length) < torch.tensor(counts)[:, None]
