"""What latents attend to in one sample, drawn over what the model saw of each input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.pictures.attention import attention_figure
from perceiver_io.pictures.attention_overview import attention_overview_figure
from perceiver_io.pictures.figure import write_figure
from perceiver_io.pictures.input_attention import input_attentions
from perceiver_io.pictures.panel_sheet import PanelSheet
from perceiver_io.pictures.seen import Seen
from perceiver_io.pictures.seen_elements import SeenElements
from perceiver_io.pictures.seen_image import SeenImage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AttentionView", "draw_view", "view_figure"]


@dataclass(frozen=True, kw_only=True)
class AttentionView:
    """Attention maps with what they are drawn over.

    Attributes:
        maps: One per cross-attend, of one sample, for all latents.
        seen: By input, what the model saw of it: a `Seen`, such as `SeenImage` or `SeenSound`.
        title: Heading of the picture.
    """

    maps: Sequence[AttentionMap]
    seen: Mapping[str, Seen] = field(default_factory=dict)
    title: str | None = None


def draw_view(view: AttentionView, path: str | Path, *, latents: Sequence[int] | None = None) -> None:
    """Writes the picture that `view_figure` makes; its errors are the same.

    Args:
        view: The maps, and what they are drawn over.
        path: The picture to write; its suffix says the format.
        latents: Latents to draw; a choice of them if None.
    """
    write_figure(view_figure(view, latents=latents), path)


def view_figure(view: AttentionView, *, latents: Sequence[int] | None = None) -> Figure:
    """Makes a figure with a group of panels for each input: what the model saw, and the attention to it.

    One image alone is drawn by `attention_figure`, and what has no `Seen` at all by `attention_overview_figure`. Among
    inputs with a `Seen`, one without it is drawn as strips over its elements.

    Args:
        view: The maps, and what they are drawn over.
        latents: Latents to draw; a choice of them if None.

    Raises:
        ValueError: The maps are none, of several samples, not finite or not of what was seen, or a latent is out of
            range.
        ImportError: matplotlib is not installed.
    """
    names = list(view.maps[0].weights) if view.maps else []
    if view.maps and (unknown := [name for name in view.seen if name not in names]):
        raise ValueError(f"There is no attention to {unknown}: the maps are of the inputs {names}.")
    if not view.seen:
        return attention_overview_figure(view.maps, latents=latents, title=view.title)
    match [view.seen.get(name) for name in names]:
        case [SeenImage(pixels=pixels)]:
            return attention_figure(pixels, view.maps, latents=latents, title=view.title, input_name=names[0])
    sheet = PanelSheet(view.title)
    for attention in input_attentions(view.maps, latents):
        seen = view.seen.get(attention.name, SeenElements())
        sheet.group(attention.name, attention.heading)
        if seen.is_empty or not attention.is_seen:
            sheet.note("There is nothing of it in this sample.")
        else:
            seen.draw(sheet, attention)
        sheet.skip(0.15)
    return sheet.figure()
