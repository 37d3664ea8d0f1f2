"""What an adapter is made with: checks of settings and of inputs, patches, masks, joining.

Every adapter refuses the same things in the same words, whoever wrote it: each check raises a ValueError that says what
came, what was expected and what to do. Types and shapes are always checked, values where `value_checks.py` says.

Shape legend: B batch, M elements, C content channels, P position channels.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from perceiver_io.component import ComponentConfig
from perceiver_io.sizes import same_sizes
from perceiver_io.value_checks import looks_at

__all__ = [
    "LARGEST_INPUT",
    "beside",
    "bool_mask",
    "check_finite",
    "check_floating",
    "check_indices",
    "check_mask",
    "check_names",
    "check_plain",
    "check_plain_anywhere",
    "check_positive",
    "check_shape",
    "element_mask",
    "listed",
    "patch_grid",
    "spread_mask",
    "whole_number",
]

LARGEST_INPUT = 1e16
"""The largest number that is taken: squares of larger ones overflow in float32."""

# Types of 8 bits are for storing: next to nothing is computed in them.
_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_positive(config: ComponentConfig, *names: str) -> None:
    """Checks that settings are at least 1, each item of a tuple too; None passes.

    Args:
        config: The settings, whose class the message names.
        *names: The fields that are checked.

    Raises:
        ValueError: A setting is 0 or negative.
    """
    for name in names:
        value = getattr(config, name)
        items = value if isinstance(value, tuple) else (value,)
        if any(item is not None and item < 1 for item in items):
            raise ValueError(f"{type(config).__qualname__}.{name} must be at least 1, got {value}.")


def whole_number(value: Any, *, name: str, least: int = 1) -> int:
    """Returns what is a whole number of Python, of NumPy, in a tensor, or a symbol.

    Args:
        value: What should be one.
        name: What the message calls it.
        least: The least that it may be.

    Raises:
        ValueError: It is not a whole number, or too small.
    """
    number = value
    if not isinstance(value, torch.SymInt):
        try:
            number = None if isinstance(value, bool) else operator.index(value)
        except TypeError:
            number = None
    if number is None:
        raise ValueError(f"{name} must be a whole number, got {value!r:.80}.")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r:.80}.")
    return number


def check_names(given: object, *, name: str) -> None:
    """Checks that something is a mapping by name, such as tensors by the names of inputs; None passes.

    Args:
        given: What should be one.
        name: What the message calls it.

    Raises:
        ValueError: It is not a mapping, or a key is not a string.
    """
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise ValueError(
            f"{name} must be a mapping by name, such as {{'image': …}}, got {type(given).__name__}."
        )
    if wrong := [key for key in given if not isinstance(key, str)]:
        raise ValueError(f"{name} must have strings for keys, got {listed(wrong):.200}.")


def check_shape(x: Tensor, layout: Sequence[int | str], *, name: str, advice: str) -> None:
    """Checks that an input is a plain tensor (`check_plain`), the number of its axes and their sizes.

    Args:
        x: The raw input.
        layout: What each axis is: its size, or a word where any size but 0 will do.
        name: What the message calls the input, a plural.
        advice: What to do, a sentence.

    Raises:
        ValueError: It is no plain tensor, the rank or a size does not fit, or the input is empty.
    """
    check_plain_anywhere(x, name=f"The batch of {name.lower()}")
    fits = x.ndim == len(layout) and all(
        isinstance(expected, str) or size == expected for size, expected in zip(x.shape, layout, strict=True)
    )
    if not fits:
        expected = f"({', '.join(map(str, layout))}{',' if len(layout) == 1 else ''})"
        raise ValueError(f"{name} must be {expected}, got {x.ndim} axes: {tuple(x.shape)}. {advice}")
    if 0 in x.shape:
        raise ValueError(
            f"{name} must not be empty along any axis, got {tuple(x.shape)}. Leave empty samples out."
        )


def check_floating(x: Tensor, *, name: str, advice: str) -> None:
    """Checks that an input is floating point.

    Args:
        x: The raw input.
        name: What the message calls it, a plural.
        advice: What to do, a sentence.

    Raises:
        ValueError: It is of another type.
    """
    if x.dtype not in _FLOATING:
        expected = "floating point of 16 bits or more" if x.is_floating_point() else "floating point"
        raise ValueError(f"{name} must be {expected}, got {x.dtype}. {advice}")


def check_plain(x: object, *, name: str, device: torch.device | None) -> None:
    """Checks that something is a tensor with a value in memory for each element.

    Args:
        x: What should be one.
        name: What the message calls it.
        device: Where the model is. One without memory takes inputs without memory; None is any that has some.

    Raises:
        ValueError: It is no tensor, or a sparse, nested or quantised one, or has no memory.
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(x).__name__}.")
    if x.is_nested:
        raise ValueError(
            f"{name} is a nested tensor, expected one with padding. Pad it, and mask the padding."
        )
    if x.layout != torch.strided or x.is_quantized:
        kind = "quantised" if x.is_quantized else "sparse"
        raise ValueError(
            f"{name} is a {kind} tensor, expected a plain one: to_dense() or dequantize() makes it."
        )
    if x.is_meta and (device is None or device.type != "meta"):
        raise ValueError(f"{name} is on the device meta, so it has no values; the model has.")


def check_plain_anywhere(x: object, *, name: str) -> None:
    """As `check_plain`, where the model's device is not known."""
    check_plain(x, name=name, device=x.device if isinstance(x, Tensor) else None)


def check_finite(
    x: Tensor,
    *,
    name: str,
    advice: str = "Clean them, or mask the elements that are missing.",
    largest: float = LARGEST_INPUT,
) -> None:
    """Raises a ValueError if a tensor holds what cannot be computed with, where values are checked; see `check_values`.

    NaN and infinities; and values whose squares overflow in a layer norm, which makes zeros or NaN of all that stands
    beside them.

    Args:
        x: Any tensor.
        name: What the message calls it.
        advice: What to do, a sentence.
        largest: The largest size of a value.

    Raises:
        ValueError: A value is NaN, infinite or larger.
    """
    if not looks_at(x) or not x.numel():
        return
    low, high = (float(bound) for bound in x.detach().aminmax())
    if -largest <= low and high <= largest:  # NaN is not
        return
    if bad := int((~torch.isfinite(x)).sum()):
        raise ValueError(
            f"{name} holds {bad} values that are NaN or infinite, expected finite values. {advice}"
        )
    raise ValueError(
        f"{name} holds values from {low:g} to {high:g}, expected none beyond {largest:g}: their squares overflow. "
        "Scale them first."
    )


def check_indices(x: Tensor, *, count: int, name: str, advice: str, mask: Tensor | None = None) -> None:
    """Checks that integers lie in [0, count), where values are checked; see `check_values`.

    Args:
        x: The raw input, of any shape.
        count: One more than the highest index.
        name: What the message calls it, a plural.
        advice: What to do, a sentence.
        mask: Bool, of the same shape; where it is False, any value will do.

    Raises:
        ValueError: The type is neither int64 nor int32, or some are out of range; the message lists them.
    """
    if x.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} must be int64 or int32, got {x.dtype}. {advice}")
    if not looks_at(x):
        return
    outside = (x < 0) | (x >= count)
    if mask is not None:
        outside = outside & mask
    if outside.any():
        found = listed(x[outside].unique().tolist())
        raise ValueError(f"{name} must be from 0 to {count - 1}, got {found}. {advice}")


def check_mask(mask: Tensor | None, shape: Sequence[int], *, x: Tensor, name: str) -> None:
    """Checks the type and shape of the mask of an input; None passes.

    Args:
        mask: The mask.
        shape: The shape that it should have.
        x: The raw input that it belongs to.
        name: What the message calls the input, a plural.

    Raises:
        ValueError: It is no plain tensor, or one of them does not fit.
    """
    if mask is None:
        return
    check_plain_anywhere(mask, name=f"The mask of {name}")
    if mask.shape != tuple(shape) or mask.dtype != torch.bool:
        raise ValueError(
            f"The mask of {name} {tuple(x.shape)} must be bool {tuple(shape)}, got {mask.dtype} {tuple(mask.shape)}. "
            "True is what is real."
        )


def bool_mask(mask: Tensor, *, name: str) -> Tensor:
    """Returns a mask as bool; tokenizers and image processors make integers of 0 and 1.

    Args:
        mask: Bool, or integers of 0 and 1.
        name: What the message calls it.

    Raises:
        ValueError: It is no tensor, of another type, or, where values are checked, holds other integers.
    """
    if isinstance(mask, Tensor):
        check_plain(mask, name=name, device=mask.device)
    if not isinstance(mask, Tensor) or mask.is_floating_point() or mask.is_complex():
        given = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"{name} must be bool or integer, got {given}. True or 1 is what is real.")
    if mask.dtype == torch.bool:
        return mask
    if looks_at(mask) and (other := (mask != 0) & (mask != 1)).any():
        found = listed(mask[other].unique().tolist())
        raise ValueError(f"{name} must be 1 where something is real and 0 elsewhere, got {found}.")
    return mask.bool()


def patch_grid(size: Sequence[int], patch: Sequence[int], *, what: str, unit: str) -> tuple[int, ...]:
    """Returns how many patches lie along each axis.

    Args:
        size: The size of each axis.
        patch: The size of a patch along each axis.
        what: What the message calls the input: "The image".
        unit: What sizes are counted in: "pixels".

    Raises:
        ValueError: The size is smaller than a patch, or no multiple of it.
    """
    pairs = list(zip(size, patch, strict=True))
    if any(side < step for side, step in pairs):
        raise ValueError(
            f"{what} of {_by(size)} {unit} is smaller than a patch of {_by(patch)}. Enlarge or pad it, or use a model "
            "with smaller patches."
        )
    if any(side % step for side, step in pairs):
        raise ValueError(
            f"{what} of {_by(size)} {unit} cannot be cut in patches of {_by(patch)}: pad, crop or resize it to a "
            "multiple of that."
        )
    return tuple(side // step for side, step in pairs)


def element_mask(mask: Tensor, grid: Sequence[int]) -> Tensor:
    """Pools a mask to the elements of a grid: an element is real if any of what it covers is.

    Args:
        mask: (B, …) bool, with as many axes after the batch as the grid has.
        grid: Elements along each axis.

    Returns:
        (B, M) bool.
    """
    if not same_sizes(mask.shape[1:], grid):
        for axis, count in enumerate(grid, start=1):
            mask = _pooled(mask, axis, count)
    return mask.flatten(1)


def spread_mask(hidden_BM: Tensor, grid: Sequence[int], mask: Tensor) -> Tensor:
    """Takes away from a mask what hidden elements cover.

    Args:
        hidden_BM: (B, M) bool, True where an element is hidden.
        grid: Elements along each axis.
        mask: (B, …) bool, True where a raw input is real; each size is a multiple of the grid's.

    Returns:
        The mask, False where an element is hidden.

    Raises:
        ValueError: A size is no multiple of the grid's, or what is hidden does not fit the grid.
    """
    if hidden_BM.shape != (mask.shape[0], math.prod(grid)):
        raise ValueError(
            f"What is hidden must be {(mask.shape[0], math.prod(grid))} (samples, elements), got "
            f"{tuple(hidden_BM.shape)}."
        )
    if any(size % count for size, count in zip(mask.shape[1:], grid, strict=True)):
        raise ValueError(
            f"An input of {_by(mask.shape[1:])} is {_by(grid)} elements: to hide some of them, sizes must be multiples "
            "of an element's. Pad, crop or resize it."
        )
    hidden = hidden_BM.unflatten(1, tuple(grid))
    for axis, count in enumerate(grid, start=1):
        hidden = hidden.repeat_interleave(mask.shape[axis] // count, dim=axis)
    return mask & ~hidden


def _pooled(mask: Tensor, axis: int, count: int) -> Tensor:
    """Pools one axis to `count` windows of equal size, which share what lies on a border.

    The real ones in a window are those before its end without those before its start: so any size will do, and no
    size need be known.
    """
    size = mask.shape[axis]
    places = torch.arange(count, device=mask.device)
    starts, ends = places * size // count, ((places + 1) * size + count - 1) // count
    before = mask.cumsum(axis, dtype=torch.int32)
    before = torch.cat([torch.zeros_like(before.narrow(axis, 0, 1)), before], dim=axis)
    return before.index_select(axis, ends) > before.index_select(axis, starts)


def beside(content_BMC: Tensor, position_MP: Tensor) -> Tensor:
    """Puts positions beside content, content first: (B, M, C + P).

    Args:
        content_BMC: The content.
        position_MP: (M, P) positions that all samples share, or (B, M, P).
    """
    return torch.cat([content_BMC, position_MP.expand(content_BMC.shape[0], -1, -1)], dim=-1)


def listed(items: Sequence[object]) -> str:
    """Returns the first five of some items, for a message."""
    return ", ".join(map(str, items[:5])) + (", …" if len(items) > 5 else "")


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
