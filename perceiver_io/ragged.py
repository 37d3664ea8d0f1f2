"""Samples of unequal sizes to one padded batch with a mask.

Shape legend: B batch; S1, S2, … the axes along which samples may differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perceiver_io.input_tools import check_plain

__all__ = ["pad_ragged"]


def pad_ragged(
    samples: Sequence[Tensor | None],
    *,
    axes: Sequence[int] = (0,),
    multiples: Sequence[int] | None = None,
    value: float = 0,
) -> tuple[Tensor, Tensor | None]:
    """Pads samples to the largest among them, and says which of what they hold is real.

    Args:
        samples: One tensor a sample, without a batch axis, all of one type and rank; None where a sample lacks it.
        axes: The axes along which they may differ, counted without the batch, in rising order.
        multiples: What the padded size of each of these axes is a multiple of; 1 if None.
        value: What stands where nothing is.

    Returns:
        The batch, (B, …), and the mask, (B, S1, S2, …) bool, with the axes that may differ; None where all is real.

    Raises:
        ValueError: No sample has it, or they differ along other axes, in type or in rank, or a size is 0.
    """
    present = [sample for sample in samples if sample is not None]
    for index, one in enumerate(present):
        check_plain(one, name=f"Sample {index} of those that are there", device=None)
    if not present:
        raise ValueError("None of the samples of the batch has this input: leave the input out.")
    first = present[0]
    fixed = [axis for axis in range(first.ndim) if axis not in axes]
    for index, sample in enumerate(samples):
        if sample is None:
            continue
        if (
            sample.ndim != first.ndim
            or sample.dtype != first.dtype
            or any(sample.shape[axis] != first.shape[axis] for axis in fixed)
        ):
            raise ValueError(
                f"The samples of a batch may differ along the axes {list(axes)} alone, got {first.dtype} "
                f"{tuple(first.shape)} and, as sample {index}, {sample.dtype} {tuple(sample.shape)}."
            )
        if not sample.numel():
            raise ValueError(f"Sample {index} is empty: its shape is {tuple(sample.shape)}. Leave it out.")
    steps = [1] * len(axes) if multiples is None else list(multiples)
    shape = list(first.shape)
    for axis, step in zip(axes, steps, strict=True):
        longest = max(sample.shape[axis] for sample in present)
        shape[axis] = -(-longest // step) * step
    batch = first.new_full((len(samples), *shape), value)
    mask = torch.zeros((len(samples), *(shape[axis] for axis in axes)), dtype=torch.bool)
    for index, sample in enumerate(samples):
        if sample is not None:
            batch[index][tuple(slice(size) for size in sample.shape)] = sample
            mask[index][tuple(slice(sample.shape[axis]) for axis in axes)] = True
    return batch, None if mask.all() else mask
