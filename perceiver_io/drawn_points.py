"""Points of an output drawn at random, so that a training step decodes some of them and not all.

Shape legend: B batch, M elements of the output's grid, O points of a sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

from perceiver_io.input_tools import check_plain, whole_number

__all__ = ["draw_points"]


def draw_points(known_BM: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Draws points of each sample among those whose true value is known, no point twice.

    Each known point of a sample is as likely as any other. So the mean of a loss over the points that were drawn is, in
    expectation, its mean over all that are known, and its gradient is unbiased (Perceiver IO, section 3.2, decodes
    subsets in training). Random numbers are of PyTorch's global generator.

    Args:
        known_BM: (B, M) bool, True where the true value is known, in row-major order of the grid.
        number: How many to draw of a sample; where fewer are known, it gets all of these.

    Returns:
        (B, O) int64 row-major indices, as `PerceiverIO.decode` takes them, and (B, O) bool, True where one was drawn;
        samples with fewer known points than others are filled up with index 0. O is at least 1.

    Raises:
        ValueError: The mask or the number is none.
    """
    check_plain(known_BM, name="The mask of known points", device=None)
    if known_BM.ndim != 2 or known_BM.dtype != torch.bool or known_BM.numel() == 0:
        raise ValueError(
            f"Known points must be a bool tensor (batch, elements), not empty, got {known_BM.dtype} "
            f"{tuple(known_BM.shape)}."
        )
    number = whole_number(number, name="The number of points to draw")
    drawn = []
    for known_M in known_BM:
        candidates = known_M.nonzero()[:, 0]
        drawn.append(candidates[torch.randperm(len(candidates), device=known_M.device)[:number]])
    most = max(1, *(len(one) for one in drawn))
    points_BO = torch.zeros(len(drawn), most, dtype=torch.int64, device=known_BM.device)
    is_drawn_BO = torch.zeros(len(drawn), most, dtype=torch.bool, device=known_BM.device)
    for sample, one in enumerate(drawn):
        points_BO[sample, : len(one)] = one
        is_drawn_BO[sample, : len(one)] = True
    return points_BO, is_drawn_BO
