"""A picture of what latents attend to, whatever the modality: a row for each latent, the elements from left to right.

Shape legend: N latents, M elements.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.pictures.figure import INK, MUTED, RULE, new_figure, shortened, write_figure
from perceiver_io.pictures.glyphs import drawable
from perceiver_io.pictures.strips import binned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["attention_overview_figure", "draw_attention_overview"]

_MAX_LATENTS = 64


def draw_attention_overview(
    maps: Sequence[AttentionMap],
    path: str | os.PathLike[str],
    *,
    latents: Sequence[int] | None = None,
    title: str | None = None,
) -> None:
    """Writes the picture that `attention_overview_figure` makes; its arguments and errors are the same.

    Args:
        maps: As there.
        path: File to write, whole or not at all; its suffix says the format.
        latents: As there.
        title: As there.
    """
    write_figure(attention_overview_figure(maps, latents=latents, title=title), path)


def attention_overview_figure(
    maps: Sequence[AttentionMap], *, latents: Sequence[int] | None = None, title: str | None = None
) -> Figure:
    """Makes a figure with a panel for each cross-attend and input: weights by latent and element, averaged over heads.

    Elements are in the order of the byte array. The colour scale of a panel ends at its largest weight, which is named
    beside how much of all attention the input gets.

    Args:
        maps: What `PerceiverIO.attention_maps` returns for one sample, for all latents.
        latents: Latents to draw; the first 64 if None.
        title: Heading.

    Raises:
        ValueError: There are no maps, they are of several samples or not finite, or a latent is out of range.
        ImportError: matplotlib is not installed.
    """
    if not maps:
        raise ValueError("There is no attention to draw: got no maps, expected one per cross-attend.")
    names = list(maps[0].weights)
    panels = [{name: _weights(one.weights[name]) for name in names} for one in maps]
    num_latents = len(panels[0][names[0]])
    shown = list(range(min(num_latents, _MAX_LATENTS))) if latents is None else list(latents)
    if wrong := [index for index in shown if not 0 <= index < num_latents]:
        raise ValueError(f"The maps are of {num_latents} latents, got the latents {wrong} to draw.")
    height = min(max(0.09 * len(shown), 0.9), 3.5) + 0.75
    figure = new_figure(1.2 + 5.0 * len(names), 0.5 + height * len(maps))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    if title:
        title = drawable(title)
        figure.suptitle(title, fontsize=11, fontweight="bold", color=INK, x=0.01, ha="left", parse_math=False)
    grid = figure.subplots(len(maps), len(names), squeeze=False)
    for row, parts in enumerate(panels):
        for column, name in enumerate(names):
            weights_NM, axes = parts[name][shown], grid[row][column]
            drawn_NM = binned(weights_NM)
            axes.imshow(
                drawn_NM,
                cmap="magma",
                vmin=0,
                vmax=float(drawn_NM.max()) or 1.0,
                aspect="auto",
                interpolation="nearest",
                extent=(0, weights_NM.shape[1], len(shown), 0),
            )
            axes.set_title(
                f"Cross-attend {row + 1}: {shortened(name)}",
                loc="left",
                fontsize=9,
                fontweight="bold",
                color=INK,
                parse_math=False,
            )
            share, brightest = float(weights_NM.sum(axis=1).mean()), float(drawn_NM.max())
            note = f"{100 * share:.3g} % of the attention, brightest {100 * brightest:.2g} %"
            axes.set_title(note, loc="right", fontsize=7, color=MUTED)
            axes.set_ylabel("latent", fontsize=8, color=INK)
            axes.set_xlabel("element", fontsize=8, color=INK)
            step = max(1, len(shown) // 8)
            ticks = range(0, len(shown), step)
            axes.set_yticks([tick + 0.5 for tick in ticks], [str(shown[tick]) for tick in ticks])
            axes.tick_params(labelsize=7, color=RULE, labelcolor=MUTED)
            for spine in axes.spines.values():
                spine.set(color=RULE)
    return figure


def _weights(weights: torch.Tensor) -> NDArray[np.float32]:
    """(N, M), averaged over heads."""
    if weights.shape[0] != 1:
        raise ValueError(f"Attention is drawn for one sample at a time, got maps of {weights.shape[0]}.")
    weights_NM = weights.detach()[0].float().mean(dim=0).flatten(1).cpu()
    if not weights_NM.isfinite().all():
        raise ValueError(
            "The attention maps hold values that are not finite: the model's weights are broken."
        )
    found: NDArray[np.float32] = weights_NM.numpy()
    return found
