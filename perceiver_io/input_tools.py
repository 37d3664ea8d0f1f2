"""What an adapter is made with: checks of settings and of inputs, patches, masks, joining.

Every adapter refuses the same things in the same words, whoever wrote it: each check raises a ValueError that says what
came, what was expected and what to do. What needs to look at values is skipped while `torch.compile` traces, because a
compiled graph cannot branch on them; types and shapes are always checked.

Shape legend: B batch, M elements, C content channels, P position channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perceiver_io.component import ComponentConfig

__all__ = [
    "beside",
    "check_finite",
    "check_floating",
    "check_indices",
    "check_mask",
    "check_positive",
    "check_shape",
    "element_mask",
    "patch_grid",
]

_POOLS = {
    1: nn.functional.adaptive_max_pool1d,
    2: nn.functional.adaptive_max_pool2d,
    3: nn.functional.adaptive_max_pool3d,
}


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


def check_shape(x: Tensor, layout: Sequence[int | str], *, name: str, advice: str) -> None:
    """Checks the number of axes and their sizes.

    Args:
        x: The raw input.
        layout: What each axis is: its size, or a word where any size but 0 will do.
        name: What the message calls the input, a plural.
        advice: What to do, a sentence.

    Raises:
        ValueError: The rank or a size does not fit, or the input is empty.
    """
    shape = tuple(x.shape)
    fits = len(shape) == len(layout) and all(
        isinstance(expected, str) or size == expected for size, expected in zip(shape, layout, strict=True)
    )
    if not fits:
        expected = f"({', '.join(map(str, layout))}{',' if len(layout) == 1 else ''})"
        raise ValueError(f"{name} must be {expected}, got {len(shape)} axes: {shape}. {advice}")
    if 0 in shape:
        raise ValueError(f"{name} must not be empty along any axis, got {shape}. Leave empty samples out.")


def check_floating(x: Tensor, *, name: str, advice: str) -> None:
    """Checks that an input is floating point.

    Args:
        x: The raw input.
        name: What the message calls it, a plural.
        advice: What to do, a sentence.

    Raises:
        ValueError: It is of another type.
    """
    if not x.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {x.dtype}. {advice}")


def check_finite(
    x: Tensor, *, name: str, advice: str = "Clean them, or mask the elements that are missing."
) -> None:
    """Raises a ValueError if a tensor holds NaN or infinities; skipped while `torch.compile` traces.

    A compiled graph cannot branch on values, so compiled models take what they get.

    Args:
        x: Any tensor.
        name: What the message calls it.
        advice: What to do, a sentence.

    Raises:
        ValueError: A value is NaN or infinite.
    """
    if torch.compiler.is_compiling():
        return
    if not torch.isfinite(x).all():
        raise ValueError(
            f"{name} holds {int((~torch.isfinite(x)).sum())} values that are NaN or infinite, expected finite values. "
            f"{advice}"
        )


def check_indices(x: Tensor, *, count: int, name: str, advice: str) -> None:
    """Checks that integers lie in [0, count); the values are not looked at while `torch.compile` traces.

    Args:
        x: The raw input, of any shape.
        count: One more than the highest index.
        name: What the message calls it, a plural.
        advice: What to do, a sentence.

    Raises:
        ValueError: The type is neither int64 nor int32, or some are out of range; the message lists them.
    """
    if x.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} must be int64 or int32, got {x.dtype}. {advice}")
    if torch.compiler.is_compiling():
        return
    outside = (x < 0) | (x >= count)
    if outside.any():
        found = x[outside].unique().tolist()
        listed = ", ".join(map(str, found[:5])) + (", …" if len(found) > 5 else "")
        raise ValueError(f"{name} must be from 0 to {count - 1}, got {listed}. {advice}")


def check_mask(mask: Tensor | None, shape: Sequence[int], *, x: Tensor, name: str) -> None:
    """Checks the type and shape of the mask of an input; None passes.

    Args:
        mask: The mask.
        shape: The shape that it should have.
        x: The raw input that it belongs to.
        name: What the message calls the input, a plural.

    Raises:
        ValueError: One of them does not fit.
    """
    if mask is not None and (mask.shape != tuple(shape) or mask.dtype != torch.bool):
        raise ValueError(
            f"The mask of {name} {tuple(x.shape)} must be bool {tuple(shape)}, got {mask.dtype} {tuple(mask.shape)}. "
            "True is what is real."
        )


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
    size_text, patch_text = "x".join(map(str, size)), "x".join(map(str, patch))
    pairs = list(zip(size, patch, strict=True))
    if any(side < step for side, step in pairs):
        raise ValueError(
            f"{what} of {size_text} {unit} is smaller than a patch of {patch_text}. Enlarge or pad it, or use a model "
            "with smaller patches."
        )
    if any(side % step for side, step in pairs):
        raise ValueError(
            f"{what} of {size_text} {unit} cannot be cut in patches of {patch_text}: pad, crop or resize it to a "
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
    if mask.shape[1:] == tuple(grid):
        return mask.flatten(1)
    return _POOLS[len(grid)](mask.unsqueeze(1).to(torch.float32), tuple(grid)).flatten(1) > 0


def beside(content_BMC: Tensor, position_MP: Tensor) -> Tensor:
    """Puts positions beside content, content first: (B, M, C + P).

    Args:
        content_BMC: The content.
        position_MP: (M, P) positions that all samples share, or (B, M, P).
    """
    return torch.cat([content_BMC, position_MP.expand(content_BMC.shape[0], -1, -1)], dim=-1)
