"""What latents attend to in one sample, drawn as fits: over an image, or as bands over the elements.

Shape legend: H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.pictures.attention import draw_attention
from perceiver_io.pictures.attention_overview import draw_attention_overview

__all__ = ["AttentionView", "draw_view"]


@dataclass(frozen=True, kw_only=True)
class AttentionView:
    """Attention maps with what they are drawn over.

    Attributes:
        maps: One per cross-attend, of one sample, for all latents.
        images: For inputs with a grid of rows and columns, the image as the model saw it: (H, W) or (H, W, 3) uint8.
        title: Heading of the picture.
    """

    maps: Sequence[AttentionMap]
    images: Mapping[str, Any] = field(default_factory=dict)
    title: str | None = None


def draw_view(view: AttentionView, path: str | Path, *, latents: Sequence[int] | None = None) -> None:
    """Draws attention maps: over the image where there is one input with an image, else as bands over the elements.

    Args:
        view: The maps, and what they are drawn over.
        path: The picture to write; its suffix says the format.
        latents: Latents to draw; a choice of them if None.
    """
    if len(view.images) == 1 and list(view.maps[0].weights) == list(view.images):
        ((name, image),) = view.images.items()
        draw_attention(image, view.maps, path, latents=latents, title=view.title, input_name=name)
    else:
        draw_attention_overview(view.maps, path, latents=latents, title=view.title)
