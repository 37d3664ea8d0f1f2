"""A picture of what a model attends to in an image.

It uses the object interface of matplotlib, so it needs no display and changes no state of a program that draws
with pyplot.

Shape legend: N latents, G grid height, g grid width, H image height, W image width.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.pictures.attention_colors import backdrop, highest_drawn, overlay_colormap, percent
from perceiver_io.pictures.figure import DPI, INK, MUTED, RULE, new_figure, write_figure
from perceiver_io.pictures.glyphs import drawable
from perceiver_io.pictures.input_attention import by_latent, interesting_latents

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from PIL.Image import Image

    ImageLike = Image | NDArray[np.uint8]

__all__ = ["attention_figure", "draw_attention", "image_pixels"]

_NUM_DEFAULT_LATENTS = 4


def draw_attention(
    image: ImageLike,
    maps: Sequence[AttentionMap],
    path: str | os.PathLike[str],
    *,
    latents: Iterable[int] | None = None,
    title: str | None = None,
    input_name: str = "image",
) -> None:
    """Writes the picture that `attention_figure` makes; its arguments and errors are the same.

    Args:
        image: The image as the model saw it.
        maps: Its attention maps.
        path: File to write, whole or not at all; its suffix says the format.
        latents: Indices of the latents to draw.
        title: Heading.
        input_name: The input that is an image.
    """
    write_figure(attention_figure(image, maps, latents=latents, title=title, input_name=input_name), path)


def attention_figure(
    image: ImageLike,
    maps: Sequence[AttentionMap],
    *,
    latents: Iterable[int] | None = None,
    title: str | None = None,
    input_name: str = "image",
) -> Figure:
    """Makes a figure of the first, second and last cross-attend of one image.

    Each has three rows: the weights over the image, and the two parts that their logits consist of, content
    and position. Columns are the mean over all latents and then single latents; heads are averaged. What a part
    adds to all elements alike changes no weight, so its mean over the elements is taken off; the two parts
    of a column share one colour scale. Every panel's ``get_array()`` is on the grid of the map.

    Args:
        image: The image as the model saw it, (H, W) or (H, W, 3) uint8, or a PIL image.
        maps: What `PerceiverIO.attention_maps` returns for this image alone, for all latents.
        latents: Indices of the latents to draw; by default the four of `interesting_latents`.
        title: Heading.
        input_name: The input that is an image.

    Raises:
        ValueError: The image is not one, the maps are none or of several images, or a latent is out of range.
        ImportError: matplotlib is not installed.
    """
    pixels = image_pixels(image)
    num_latents = _check_maps(maps, input_name)
    shown = (
        interesting_latents(maps, _NUM_DEFAULT_LATENTS, input_name=input_name)
        if latents is None
        else list(latents)
    )
    if out_of_range := [index for index in shown if not 0 <= index < num_latents]:
        raise ValueError(
            f"The maps are of {num_latents} latents, got the latents {out_of_range} to draw. Choose from 0 to "
            f"{num_latents - 1}, and compute the maps for all latents of the model."
        )
    chosen_maps = sorted({0, min(1, len(maps) - 1), len(maps) - 1})
    grid = maps[0].weights[input_name].shape[-2:]
    sheet = _AttentionSheet(
        pixels, grid, num_groups=len(chosen_maps), num_columns=1 + len(shown), title=title
    )
    for group, index in enumerate(chosen_maps):
        name = "Cross-attend" if len(maps) == 1 else f"Cross-attend {index + 1} of {len(maps)}"
        sheet.draw_group(group, name, maps[index], shown, input_name=input_name)
    return sheet.figure


class _AttentionSheet:
    """Places and draws the panels of an attention figure; lengths are in inches, from the top left."""

    _panel_pixels = 143
    _max_panel_pixels = 250
    _left, _right, _bottom = 0.2, 0.2, 0.55
    _min_width = 4.2
    _row_label = 0.55
    _gap, _bar, _bar_gap, _bar_labels = 0.14, 0.07, 0.06, 0.3
    _group_gap = 0.3

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        grid: tuple[int, ...],
        *,
        num_groups: int,
        num_columns: int,
        title: str | None,
    ) -> None:
        height, width = pixels.shape[:2]
        longer = max(height, width)
        # Whole pixels per element, and no element lost, as far as there is room.
        num_pixels = max(grid) * max(1, round(self._panel_pixels / max(grid)))
        self.num_pixels = min(num_pixels, self._max_panel_pixels)
        # A panel keeps the image's shape, but a thin strip still has room for its labels.
        self.image_width = self.num_pixels / DPI
        self.panel_width = self.image_width * max(width / longer, 0.6)
        self.panel_height = self.image_width * max(height / longer, 0.35)
        self.pixels = pixels
        self.top = 0.62 if title else 0.35
        bar_height = self._bar_gap + self._bar + self._bar_labels
        self.group_height = 3 * self.panel_height + 2 * bar_height + self._gap + self._group_gap
        self.columns_left = self._left + self.image_width + self._row_label
        columns_width = num_columns * (self.panel_width + self._gap) - self._gap
        self.width = max(self.columns_left + columns_width + self._right, self._min_width)
        self.height = self.top + num_groups * self.group_height - self._group_gap + self._bottom
        self.figure: Figure = new_figure(self.width, self.height)
        if title:
            title = drawable(title)
            size = min(12, 110 * (self.width - self._left - self._right) / len(title))
            self._text(self._left, 0.26, title, size=size, weight="bold")
        notes = (
            "weights = softmax(content + position + a constant), averaged over heads",
            "content and position: around their means, on one scale per column",
        )
        for line, note in enumerate(notes):
            self._text(self._left, self.height - 0.32 + 0.14 * line, note, size=7, color=MUTED)

    def draw_group(
        self, group: int, name: str, attention_map: AttentionMap, latents: Sequence[int], *, input_name: str
    ) -> None:
        top = self.top + group * self.group_height
        self._reference_image(top, name)
        rows = [
            by_latent(part[input_name])
            for part in (attention_map.weights, attention_map.content, attention_map.position)
        ]
        seen_Gg = (rows[0] > 0).any(dim=0).numpy()
        columns = [("mean of latents", [x_NGg.mean(dim=0) for x_NGg in rows])]
        columns += [(f"latent {index}", [x_NGg[index] for x_NGg in rows]) for index in latents]
        for column, (label, (weights_Gg, content_Gg, position_Gg)) in enumerate(columns):
            left = self.columns_left + column * (self.panel_width + self._gap)
            # A masked element has logits that never counted.
            parts = [_centred(part.numpy(), seen_Gg) for part in (content_Gg, position_Gg)]
            self._column(left, top, name, label, weights_Gg.numpy(), parts, first=column == 0)

    def _column(
        self,
        left: float,
        top: float,
        name: str,
        label: str,
        weights_Gg: NDArray[np.float32],
        parts: Sequence[NDArray[np.float32]],
        *,
        first: bool,
    ) -> None:
        weights_axes = self._panel(
            left, top, f"{name}: {label}: weights", row_label="weights" if first else None
        )
        weights_axes.set_title(label, fontsize=8, color=INK, pad=4)
        self._imshow(weights_axes, backdrop(self.pixels), cmap="gray", limits=(0, 255))
        highest = highest_drawn(weights_Gg)
        highest_label = percent(highest) if highest == weights_Gg.max() else f"≥ {percent(highest)}"
        drawn = self._imshow(weights_axes, weights_Gg, cmap=overlay_colormap(), limits=(0, highest))
        bottom = top + self.panel_height
        self._colour_bar(left, bottom, drawn, {0: "0", highest: highest_label}, on_dark=True)

        bottom += self._bar_gap + self._bar + self._bar_labels
        limit = max(float(np.abs(part).max()) for part in parts) or 1.0
        for row_label, part in zip(("content", "position"), parts, strict=True):
            axes = self._panel(
                left, bottom, f"{name}: {label}: {row_label}", row_label=row_label if first else None
            )
            drawn = self._imshow(axes, part, cmap="RdBu_r", limits=(-limit, limit))
            bottom += self.panel_height + self._gap
        bottom -= self._gap
        self._colour_bar(left, bottom, drawn, {-limit: f"−{limit:.2g}", 0: "0", limit: f"+{limit:.2g}"})

    def _reference_image(self, top: float, name: str) -> None:
        axes = self._axes(self._left, top, self.image_width, self.panel_height, label=f"{name}: image")
        axes.set_anchor("NW")
        self._imshow(axes, self.pixels, cmap="gray", limits=(0, 255))
        axes.set_title(name, fontsize=8.5, fontweight="bold", color=INK, loc="left", pad=4, parse_math=False)

    def _panel(self, left: float, top: float, label: str, *, row_label: str | None) -> Axes:
        axes = self._axes(left, top, self.panel_width, self.panel_height, label=label)
        if row_label:
            axes.set_ylabel(row_label, fontsize=8, color=INK, labelpad=5)
        return axes

    def _axes(self, left: float, top: float, width: float, height: float, *, label: str) -> Axes:
        bounds = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        axes = self.figure.add_axes(bounds, label=label)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set(color=RULE, linewidth=0.6)
        return axes

    def _imshow(
        self, axes: Axes, values: NDArray[Any], *, cmap: Colormap | str | None, limits: tuple[float, float]
    ) -> Any:
        height, width = self.pixels.shape[:2]
        low, high = limits
        return axes.imshow(
            values,
            cmap=cmap,
            vmin=low,
            vmax=high,
            # The image's, whatever the grid: every element covers the pixels that it stands for.
            extent=(0, width, height, 0),
            # Matplotlib's own choice averages where there are more values than pixels of the picture.
            interpolation="nearest" if max(values.shape[:2]) <= self.num_pixels else None,
        )

    def _colour_bar(
        self, left: float, top: float, drawn: Any, ticks: Mapping[float, str], *, on_dark: bool = False
    ) -> None:
        axes = self._axes(left, top + self._bar_gap, self.panel_width, self._bar, label="<colorbar>")
        if on_dark:
            axes.set_facecolor("#4d4d4d")
        bar = self.figure.colorbar(drawn, cax=axes, orientation="horizontal")
        bar.set_ticks(list(ticks), labels=list(ticks.values()))
        bar.outline.set(edgecolor=RULE, linewidth=0.6)
        axes.tick_params(labelsize=6.5, length=2, width=0.5, pad=1.5, color=MUTED, labelcolor=MUTED)
        first, *_, last = axes.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")

    def _text(self, left: float, top: float, text: str, **style: Any) -> None:
        style = {"color": INK, "verticalalignment": "center", "parse_math": False, **style}
        self.figure.text(left / self.width, 1 - top / self.height, text, **style)


def image_pixels(image: ImageLike) -> NDArray[np.uint8]:
    """Returns the pixels of an image to draw on, (H, W) or (H, W, 3) uint8.

    Args:
        image: Such an array, or a PIL image.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(image, np.ndarray) and hasattr(image, "convert"):
        image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.size == 0 or not (pixels.ndim == 2 or pixels.shape[2:] == (3,)):
        raise ValueError(
            f"An image to draw on is a PIL image or a uint8 array (H, W) or (H, W, 3), got {pixels.dtype} "
            f"{pixels.shape}."
        )
    return pixels


def _check_maps(maps: Sequence[AttentionMap], input_name: str) -> int:
    if not maps:
        raise ValueError("There is no attention to draw: got no maps, expected one per cross-attend.")
    if any(input_name not in attention_map.weights for attention_map in maps):
        raise ValueError(
            f"There are no maps of {input_name!r}, expected one of {list(maps[0].weights)} in all."
        )
    shapes = {tuple(attention_map.weights[input_name].shape) for attention_map in maps}
    if any(len(shape) != 5 or shape[0] != 1 or 0 in shape for shape in shapes):
        raise ValueError(
            "Attention is drawn for one image at a time: expected maps of the shape (1, heads, latents, grid height, "
            f"grid width), got {sorted(shapes)}."
        )
    if not all(attention_map.weights[input_name].isfinite().all() for attention_map in maps):
        raise ValueError(
            "The attention maps hold values that are not finite: the model's weights are broken."
        )
    return min(shape[2] for shape in shapes)


def _centred(part_Gg: NDArray[np.float32], seen_Gg: NDArray[np.bool_]) -> NDArray[np.float32]:
    seen = np.ma.masked_array(part_Gg, mask=~seen_Gg)
    return seen - seen.mean()
