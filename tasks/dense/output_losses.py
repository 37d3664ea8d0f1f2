"""How far the outputs of a model are from their labels, whole or at some of their points.

Shape legend: B batch, O points, A axes of an output's query grid, V values of a query, K classes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from perceiver_io.component import ComponentConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.points import Points
from perceiver_io.position import at_elements, flat_indices
from perceiver_io.tasks.dense.losses import (
    UNKNOWN,
    Difference,
    absolute_difference,
    class_loss,
    mean_of_samples,
    number_loss,
)
from perceiver_io.value_checks import looks_at

__all__ = ["at_points", "output_loss", "query_values"]


def output_loss(
    name: str,
    prediction: Tensor,
    target: Tensor,
    config: ComponentConfig,
    *,
    mask: Tensor | None = None,
    points: Tensor | None = None,
    difference: Difference = absolute_difference,
) -> Tensor:
    """Computes the loss of one output: cross-entropy of classes, the mean difference of anything else.

    What is not known does not count, of each sample what is known counts the same, and each sample of which anything is
    known as much as the others: so at points that are drawn at random the loss is unbiased.

    Args:
        name: What messages call the output.
        prediction: What the decoder gave: the whole output, or (B, O, V) at points.
        target: What it should have given, the whole. Of a decoder of classes (B,) indices, or (B, K) probabilities; of
            a dense one integers, without the axis of channels, are classes of its elements, `UNKNOWN` where they are
            not known, and floating-point numbers are its values, NaN where they are not known.
        config: The decoder's configuration.
        mask: True where the target is known; the target's shape, without its channels. Nothing else counts.
        points: As `PerceiverIO.decode` takes them, but indices only.
        difference: What two numbers are apart.

    Raises:
        ValueError: The target or the mask does not fit the output, or there are coordinates instead of indices.
    """
    num_classes = getattr(config, "num_classes", None)
    if num_classes is not None:
        return _loss_of_class(name, prediction, target, mask, num_classes=num_classes)
    if points is not None and not isinstance(config, DenseDecoder.Config):
        raise ValueError(f"The output {name!r} has no points: ask for it whole, with None.")
    if isinstance(config, DenseDecoder.Config) and not target.is_floating_point():
        return _loss_of_classes(name, prediction, target, config, mask=mask, points=points)
    target = target.to(prediction.dtype)
    if mask is not None:
        target = torch.where(_expanded(name, mask, target, config), target, torch.nan)
    if points is not None and isinstance(config, DenseDecoder.Config):
        target = at_points(name, target, config, points)
    if prediction.shape != target.shape:
        raise ValueError(
            f"The target of the output {name!r} must be {tuple(prediction.shape)}, as what is decoded, got "
            f"{tuple(target.shape)}. Targets at another resolution need an output of that resolution."
        )
    return number_loss(prediction, target, difference=difference)


def at_points(name: str, x: Tensor, config: DenseDecoder.Config, points: Tensor) -> Tensor:
    """Picks from a whole output what a decoder gives at some points.

    Args:
        name: What messages call the output.
        x: The whole output, such as (B, T, F, H, W).
        config: The decoder's configuration, which says where the channels are and what a query covers.
        points: (O,) integer row-major indices of the query grid, or (O, A) integer indices along each axis; (B, O) or
            (B, O, A) where each sample has its own.

    Returns:
        (B, O, V).

    Raises:
        ValueError: The output does not fit the configuration, points lie outside, or are coordinates.
    """
    values = query_values(name, x, config)
    grid = tuple(values.shape[1:-1])
    if config.follows is None and grid != config.grid:
        raise ValueError(
            f"The target of the output {name!r} has the query grid {grid}, but points count in {config.grid}. Resize "
            "the target."
        )
    parsed = Points.parse(points, grid, name=name, batch_size=x.shape[0], device=x.device)
    if parsed.indices is None:
        raise ValueError(
            f"A target has no values at the coordinates that points of the output {name!r} are given by. Give indices, "
            "or leave out the loss with return_loss=False."
        )
    return at_elements(values.flatten(1, -2), flat_indices(parsed.indices, grid))


def query_values(name: str, x: Tensor, config: DenseDecoder.Config) -> Tensor:
    """Rearranges a whole output to the values of each query: the inverse of what the decoder does at its end.

    Args:
        name: What messages call the output.
        x: The whole output.
        config: The decoder's configuration.

    Returns:
        (B, *query grid, V).

    Raises:
        ValueError: The number of axes or channels is another, or an axis is no multiple of its patch.
    """
    place = config.channel_axis
    axes = len(
        config.grid or config.max_resolution or config.patch_size or x.shape[1 + (place is not None) :]
    )
    if x.ndim != 1 + axes + (place is not None):
        raise ValueError(
            f"The target of the output {name!r} must have {1 + axes + (place is not None)} axes, got {tuple(x.shape)}."
        )
    x = x.unsqueeze(-1) if place is None else x.movedim(place + 1 if place >= 0 else place, -1)
    patch = config.patch_size or (1,) * axes
    sizes = x.shape[1:-1]
    if x.shape[-1] != config.output_channels or any(
        size % step for size, step in zip(sizes, patch, strict=True)
    ):
        raise ValueError(
            f"The target of the output {name!r} must have {config.output_channels} channels and sizes that are "
            f"multiples of {patch}, got {x.shape[-1]} channels and {tuple(sizes)}."
        )
    for axis in reversed(range(axes)):
        x = x.unflatten(axis + 1, (-1, patch[axis]))
    order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1]
    return x.permute(order).flatten(axes + 1)


def _loss_of_classes(
    name: str,
    prediction: Tensor,
    target: Tensor,
    config: DenseDecoder.Config,
    *,
    mask: Tensor | None,
    points: Tensor | None,
) -> Tensor:
    """Cross-entropy of a dense output: its channels are logits."""
    if config.channel_axis is None or target.dtype == torch.bool:
        raise ValueError(
            f"The target of the output {name!r} must be floating-point numbers, got {target.dtype}: integers are "
            "classes, of an output with a channel for each."
        )
    of_labels = replace(config, output_channels=1, channel_axis=None)
    target = target.long()
    if mask is not None:
        target = torch.where(_expanded(name, mask, target, of_labels), target, UNKNOWN)
    if points is None:
        place = config.channel_axis
        logits_BK = prediction.movedim(place + 1 if place >= 0 else place, 1)
    else:
        target = at_points(name, target, of_labels, points)  # (B, O, elements of a query)
        logits_BK = prediction.unflatten(-1, (-1, config.output_channels)).movedim(-1, 1)
    try:
        return class_loss(logits_BK, target)
    except ValueError as error:
        raise ValueError(f"The target of the output {name!r}: {error}") from error


def _loss_of_class(
    name: str, logits_BK: Tensor, target: Tensor, mask_B: Tensor | None, *, num_classes: int
) -> Tensor:
    batch_size = logits_BK.shape[0]
    soft = target.is_floating_point()
    expected = (batch_size, num_classes) if soft else (batch_size,)
    if target.shape != expected or not (soft or target.dtype in (torch.int64, torch.int32)):
        raise ValueError(
            f"The target of the output {name!r} must be integer class indices {(batch_size,)} or floating-point class "
            f"probabilities {(batch_size, num_classes)}, got {target.dtype} {tuple(target.shape)}."
        )
    if mask_B is not None and mask_B.shape != (batch_size,):
        raise ValueError(
            f"The mask of the output {name!r} must be {(batch_size,)}, got {tuple(mask_B.shape)}."
        )
    if soft:
        losses_B = torch.nn.functional.cross_entropy(logits_BK, target.to(logits_BK.dtype), reduction="none")
        return mean_of_samples(
            losses_B, torch.ones_like(losses_B, dtype=torch.bool) if mask_B is None else mask_B
        )
    target = target.long()
    if mask_B is not None:
        target = torch.where(mask_B, target, UNKNOWN)
    known_B = target != UNKNOWN
    if looks_at(target) and (known_B & ((target < 0) | (target >= num_classes))).any():
        real_B = target[known_B]
        raise ValueError(
            f"The target of the output {name!r} must be classes 0 to {num_classes - 1}, or {UNKNOWN} where they are "
            f"not known, got {int(real_B.min())} to {int(real_B.max())}."
        )
    return class_loss(logits_BK, target)


def _expanded(name: str, mask: Tensor, target: Tensor, config: ComponentConfig) -> Tensor:
    """Gives a mask the target's channels."""
    place = getattr(config, "channel_axis", None)
    shape = list(target.shape)
    if place is not None:
        axis = place + 1 if place >= 0 else target.ndim + place
        del shape[axis]
        if mask.shape == torch.Size(shape):
            return mask.unsqueeze(axis).expand_as(target)
    elif mask.shape == target.shape:
        return mask
    raise ValueError(
        f"The mask of the output {name!r} must be {tuple(shape)} for a target {tuple(target.shape)}, got "
        f"{tuple(mask.shape)}."
    )
