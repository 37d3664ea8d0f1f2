"""Attention maps as they are drawn: by input, the mean and some latents of the first and the last cross-attend.

Shape legend: B batch, H heads, N latents; ``*grid`` as in `AttentionMap`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.pictures.attention_colors import percent

__all__ = ["InputAttention", "LatentWeights", "Look", "by_latent", "input_attentions", "interesting_latents"]

_NUM_DEFAULT_LATENTS = 4


@dataclass(frozen=True, kw_only=True)
class LatentWeights:
    """How one latent, or the mean of all, weighs the elements of an input.

    Attributes:
        label: Who looks.
        weights: (*grid), averaged over heads.
    """

    label: str
    weights: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one cross-attend sees of an input.

    Attributes:
        name: The cross-attend.
        latents: The mean of all latents, then those that are drawn.
    """

    name: str
    latents: Sequence[LatentWeights]


@dataclass(frozen=True, kw_only=True)
class InputAttention:
    """What is drawn of the attention to one input.

    Attributes:
        name: The input.
        heading: The input, and its share of all attention if there are others.
        looks: The first cross-attend and the last.
    """

    name: str
    heading: str
    looks: Sequence[Look]

    @property
    def grid(self) -> tuple[int, ...]:
        """The input's grid, or its number of elements if it has none."""
        return self.looks[0].latents[0].weights.shape

    def mapped(self, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> InputAttention:
        """Returns the same attention on another grid.

        Args:
            change: What becomes of weights.
        """
        looks = [
            replace(look, latents=[replace(one, weights=change(one.weights)) for one in look.latents])
            for look in self.looks
        ]
        return replace(self, looks=looks)

    @property
    def is_seen(self) -> bool:
        """Whether there is any attention to the input; there is none to an input that the sample lacks."""
        return any(look.latents[0].weights.any() for look in self.looks)


def interesting_latents(
    maps: Sequence[AttentionMap], count: int, *, input_name: str | None = None
) -> list[int]:
    """Returns the latents that look at the least in the last cross-attend, the sharpest first.

    How much a latent looks at is the entropy of its weights, averaged over heads.

    Args:
        maps: Attention maps of one sample.
        count: How many latents; all of them, if there are not as many.
        input_name: The input that they look at; all inputs if None.
    """
    names = maps[-1].weights if input_name is None else [input_name]
    entropies = [
        torch.special.entr(by_latent(maps[-1].weights[name])).flatten(1).sum(dim=1) for name in names
    ]
    return torch.stack(entropies).sum(dim=0).argsort(stable=True)[:count].tolist()


def input_attentions(
    maps: Sequence[AttentionMap], latents: Sequence[int] | None = None
) -> list[InputAttention]:
    """Returns what is drawn of attention maps, by input.

    Args:
        maps: What `PerceiverIO.attention_maps` returns for one sample, for all latents.
        latents: The latents to draw; by default the four of `interesting_latents`.

    Raises:
        ValueError: There are no maps, they are of several samples or not finite, or a latent is out of range.
    """
    if not maps:
        raise ValueError("There is no attention to draw: got no maps, expected one per cross-attend.")
    chosen = {index + 1: _checked(maps[index]) for index in sorted({0, len(maps) - 1})}
    num_latents = len(next(iter(chosen[1].values())))
    shown = interesting_latents(maps, _NUM_DEFAULT_LATENTS) if latents is None else list(latents)
    if wrong := [index for index in shown if not 0 <= index < num_latents]:
        raise ValueError(f"The maps are of {num_latents} latents, got the latents {wrong} to draw.")
    attentions = []
    for name in chosen[1]:
        by_look = {number: weights[name] for number, weights in chosen.items()}
        looks = [
            Look(
                name="Cross-attend" if len(maps) == 1 else f"Cross-attend {number} of {len(maps)}",
                latents=_latents(weights, shown, with_share=len(chosen[1]) > 1),
            )
            for number, weights in by_look.items()
        ]
        heading = _heading(name, by_look) if len(chosen[1]) > 1 else name
        attentions.append(InputAttention(name=name, heading=heading, looks=looks))
    return attentions


def _checked(one: AttentionMap) -> dict[str, NDArray[np.float32]]:
    """(N, *grid) by input, averaged over heads."""
    weights = {name: by_latent(part) for name, part in one.weights.items()}
    if several := {part.shape[0] for part in one.weights.values()} - {1}:
        raise ValueError(f"Attention is drawn for one sample at a time, got maps of {max(several)}.")
    if not all(part.isfinite().all() for part in weights.values()):
        raise ValueError(
            "The attention maps hold values that are not finite: the model's weights are broken."
        )
    return {name: part.numpy() for name, part in weights.items()}


def by_latent(part: torch.Tensor) -> torch.Tensor:
    """Returns (N, *grid), averaged over heads, of the only sample.

    Args:
        part: (1, H, N, *grid), a part of an attention map.
    """
    return part.detach()[0].float().mean(dim=0).cpu()


def _latents(
    weights: NDArray[np.float32], shown: Sequence[int], *, with_share: bool
) -> Sequence[LatentWeights]:
    by_label = {"mean": weights.mean(axis=0)} | {f"latent {index}": weights[index] for index in shown}
    return [
        LatentWeights(label=f"{label} ({percent(one.sum())})" if with_share else label, weights=one)
        for label, one in by_label.items()
    ]


def _heading(name: str, by_look: Mapping[int, NDArray[np.float32]]) -> str:
    shares = {number: percent(weights.sum() / len(weights)) for number, weights in by_look.items()}
    if len(shares) == 1:
        return f"{name}: {shares[1]} of the attention"
    last = max(shares)
    return f"{name}: {shares[1]} of the attention in cross-attend 1, {shares[last]} in cross-attend {last}"
