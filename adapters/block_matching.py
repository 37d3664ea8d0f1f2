"""Block matching: where the surroundings of each pixel of a frame lie in another, as a start for finer flow.

Shape legend: B batch, F image channels, H height, W width, h and w half of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["NUM_MATCHED", "matched_motion"]

NUM_MATCHED = 3
"""Channels of what is found: motion to the right and down, and how badly the best block fits."""

_SIDE = 5  # of a block, in pixels of half the resolution
_TEMPERATURE = 0.003  # differences of pixels in [-1, 1] by which one shift is better than another
_COST_SCALE = 4.0


def matched_motion(
    first_BFHW: Tensor, second_BFHW: Tensor, mask_BHW: Tensor | None = None, *, radius: int
) -> Tensor:
    """Looks for blocks of the first frame in the second, at half the resolution.

    Classical block matching with the mean absolute difference. The motion is the mean of all shifts, weighted by a
    softmax of how well they fit; so it lies between whole pixels where several fit alike.

    Args:
        first_BFHW: Frames in [-1, 1].
        second_BFHW: The same.
        mask_BHW: True where a pixel is real; frames are zero elsewhere. What is not real fits everywhere.
        radius: Largest shift along each axis, in pixels of half the resolution.

    Returns:
        (B, 3, H, W), motion to the right and down in units of the largest, and the scaled difference of the best
        shift.
    """
    height, width = first_BFHW.shape[-2:]
    # In half precision, differences are rounded by as much as tells one shift from another.
    dtype = first_BFHW.dtype
    wide = torch.promote_types(dtype, torch.float32)
    to_even = [0, width % 2, 0, height % 2]
    first, second = (
        nn.functional.avg_pool2d(nn.functional.pad(one.to(wide), to_even), 2)
        for one in (first_BFHW, second_BFHW)
    )
    real_B1hw = None
    if mask_BHW is not None:
        mask = nn.functional.pad(mask_BHW[:, None].to(first.dtype), to_even)
        real_B1hw = nn.functional.max_pool2d(mask, 2)
    rows, columns = first.shape[-2:]
    around = nn.functional.pad(second, [radius] * 4)
    shifts = [(down, right) for down in range(-radius, radius + 1) for right in range(-radius, radius + 1)]
    costs = torch.stack(
        [
            (first - around[..., radius + down :, radius + right :][..., :rows, :columns]).abs().mean(1)
            for down, right in shifts
        ],
        dim=1,
    )
    if real_B1hw is not None:
        costs = costs * real_B1hw
    costs = nn.functional.avg_pool2d(costs, _SIDE, stride=1, padding=_SIDE // 2)
    weights = (-costs / _TEMPERATURE).softmax(dim=1)
    by_axis = weights.new_tensor([[right, down] for down, right in shifts]) / radius
    motion_B2hw = torch.einsum("bshw,sa->bahw", weights, by_axis)
    found = torch.cat([motion_B2hw, costs.amin(dim=1, keepdim=True) * _COST_SCALE], dim=1)
    # Nothing in between: pixels beside masked ones would be mixed with what was found there.
    return nn.functional.interpolate(found, scale_factor=2, mode="nearest")[..., :height, :width].to(dtype)
