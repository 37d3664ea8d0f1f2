"""Pairs of frames with their true flow, made of photographs: each pair is made when it is asked for.

After FlyingChairs (Dosovitskiy et al., 2015) and AutoFlow (Sun et al., 2021): one to three shapes, cut from
photographs, move over a background that moves, too. Each layer turns, grows and bends a little while it moves.

Both frames are drawn from the same layers. A point of a layer has a place y in the second frame. In the first frame a
pixel x shows what the second has at y = x + flow(x), as far as its layer goes: so the flow is known at the pixels of
the first frame and need not be inverted, and a pixel is hidden where another layer lies above y.

Shape legend: H height, W width, T frames, J waves along an axis, N and M rows and columns of a photograph.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.extras import require

__all__ = ["TEST_PHOTOGRAPHS", "TRAINING_PHOTOGRAPHS", "WarpedPhotographs", "photographs"]

TRAINING_PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "coffee",
    "flower.jpg",
    "grass",
    "hubble_deep_field",
    "immunohistochemistry",
    "rocket",
)
"""Photographs of scikit-image and scikit-learn that training pairs are made of."""

TEST_PHOTOGRAPHS = ("chelsea", "china.jpg", "coins", "gravel")
"""Photographs that test pairs are made of, and no others."""

_OfPlaces = Callable[[Tensor], Tensor]

# Of the shorter side of a frame.
_SIDES_OF_PHOTOGRAPH = 3.0  # what a photograph's shorter side is brought to
_LONGEST_SHIFT = 4.5 / 64
_BEND = 0.6 / 64
_MEMORY = 2**29  # bytes
_MOST_SHAPES, _NUM_WAVES = 3, 4


@dataclass(frozen=True, kw_only=True)
class WarpedPhotographs:
    """Pairs of frames, by index. A pair depends on its index and the seed alone.

    Rows have `first` and `second`, (3, H, W) uint8; `flow`, (2, H, W) float32, how many pixels each pixel of the first
    frame moves to the right and down; and `valid`, (H, W) bool, False where a pixel is hidden in the second frame by
    another layer, or has left it.

    Attributes:
        names: Names of the photographs.
        size: Height and width of the frames. Motion is in proportion to the shorter one: at 64 pixels mostly up to 5.
        num_pairs: How many pairs there are.
        seed: Decides all of them.

    The first 512 MiB of pairs are kept in memory once they are made: 8,700 of 64 x 64 pixels.

    Raises:
        ValueError: The size or the number is not positive.
    """

    names: tuple[str, ...]
    size: tuple[int, int]
    num_pairs: int
    seed: int = 0
    _kept: dict[int, dict[str, Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if min(self.size) < 8 or self.num_pairs < 1:
            raise ValueError(
                f"Warped photographs need frames of at least 8x8 pixels, and at least one pair, got "
                f"{self.size[0]}x{self.size[1]} and {self.num_pairs}."
            )

    def __len__(self) -> int:
        return self.num_pairs

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Makes a pair.

        Raises:
            IndexError: There is none of this index.
        """
        if not 0 <= index < self.num_pairs:
            raise IndexError(f"There are {self.num_pairs} pairs, got the index {index}.")
        if index in self._kept:
            return self._kept[index]
        rng = np.random.default_rng([self.seed, index])
        side = round(_SIDES_OF_PHOTOGRAPH * min(self.size))
        pair = _pair(photographs(self.names, side), self.size, rng)
        size = sum(value.numel() * value.element_size() for value in pair.values())
        if (len(self._kept) + 1) * size <= _MEMORY:
            self._kept[index] = pair
        return pair


@functools.lru_cache(maxsize=8)
def photographs(names: Sequence[str], side: int) -> tuple[Tensor, ...]:
    """Returns photographs that scikit-image and scikit-learn bring, (3, N, M), float32 from 0 to 1.

    Args:
        names: Those that end with ".jpg" are of scikit-learn.
        side: What the shorter side is brought to.

    Raises:
        ImportError: One of the two is not installed.
    """
    found = []
    for name in names:
        if name.endswith(".jpg"):
            pixels = require("sklearn.datasets", extra="train").load_sample_image(name)
        else:
            pixels = getattr(require("skimage.data", extra="samples"), name)()
        values = torch.from_numpy(np.array(pixels)).float() / 255
        values = values[None].expand(3, -1, -1) if values.ndim == 2 else values.movedim(-1, 0)
        factor = side / min(values.shape[1:])
        size = [round(factor * axis) for axis in values.shape[1:]]
        resized = torch.nn.functional.interpolate(
            values[None], size, mode="bilinear", antialias=True, align_corners=False
        )
        found.append(resized[0].contiguous())
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """Something that moves.

    Attributes:
        flow: (H, W, 2), how far the pixels of the first frame move, right and down, if they show this layer.
        colours: Gives the layer's colours (T, 3, H, W) at places (T, H, W, 2) of the second frame.
        cover: Gives how much of a place (…, 2) of the second frame the layer covers, from 0 to 1; None for all of it.
    """

    flow: Tensor
    colours: _OfPlaces
    cover: _OfPlaces | None


def _pair(pictures: Sequence[Tensor], size: tuple[int, int], rng: np.random.Generator) -> dict[str, Tensor]:
    height, width = size
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    places_HW2 = torch.stack([columns, rows], dim=-1)
    count = 1 + int(rng.integers(1, _MOST_SHAPES + 1))
    chosen = rng.choice(len(pictures), count, replace=count > len(pictures))
    layers = [
        _layer(pictures[one], places_HW2, rng, is_ground=which == 0) for which, one in enumerate(chosen)
    ]
    frames_23HW = torch.zeros(2, 3, height, width)
    flow_HW2 = torch.zeros(height, width, 2)
    shown_HW = torch.zeros(height, width, dtype=torch.int64)
    for which, layer in enumerate(layers):
        at_2HW2 = torch.stack([places_HW2 + layer.flow, places_HW2])
        if layer.cover is None:
            frames_23HW, flow_HW2 = layer.colours(at_2HW2), layer.flow
            continue
        cover_2HW = layer.cover(at_2HW2)
        frames_23HW = torch.lerp(frames_23HW, layer.colours(at_2HW2), cover_2HW[:, None])
        is_top_HW = cover_2HW[0] > 0.5
        flow_HW2 = torch.where(is_top_HW[..., None], layer.flow, flow_HW2)
        shown_HW = shown_HW.masked_fill(is_top_HW, which)
    goes_to_HW2 = places_HW2 + flow_HW2
    valid_HW = ((goes_to_HW2 >= 0) & (goes_to_HW2 <= torch.tensor([width - 1.0, height - 1.0]))).all(-1)
    for which, layer in enumerate(layers):
        if layer.cover is not None:
            valid_HW &= (shown_HW >= which) | (layer.cover(goes_to_HW2) < 0.5)
    first, second = (255 * frames_23HW).round().clamp(0, 255).byte()
    return {"first": first, "second": second, "flow": flow_HW2.movedim(-1, 0).contiguous(), "valid": valid_HW}


def _layer(picture_3NM: Tensor, places_HW2: Tensor, rng: np.random.Generator, *, is_ground: bool) -> _Layer:
    height, width = places_HW2.shape[:2]
    side, middle_2 = min(height, width), np.array([width, height]) / 2
    centre_2 = middle_2 if is_ground else rng.uniform(0.2, 1.8, 2) * middle_2
    return _Layer(
        flow=_flow(places_HW2, centre_2, side, rng),
        colours=_texture(picture_3NM, middle_2, rng),
        cover=None if is_ground else _shape(centre_2, side * rng.uniform(0.12, 0.3), rng),
    )


def _flow(places_HW2: Tensor, centre_2: NDArray[np.float64], side: int, rng: np.random.Generator) -> Tensor:
    """A shift in any direction, a turn and a growth around a centre, and a smooth bend: a sum of slow waves."""
    length, direction = side * _LONGEST_SHIFT * rng.uniform(0, 1), rng.uniform(0, 2 * math.pi)
    shift_2 = length * np.array([math.cos(direction), math.sin(direction)])
    turn, growth = rng.normal(0, 0.03, 2)
    matrix_22 = np.array([[growth, -turn], [turn, growth]])
    steady_HW2 = places_HW2 @ _float(matrix_22.T) + _float(shift_2 - matrix_22 @ centre_2)
    orders = np.arange(_NUM_WAVES)
    heights_2JJ = rng.normal(0, side * _BEND, (2, _NUM_WAVES, _NUM_WAVES)) / (1 + orders[:, None] + orders)
    waves_HJ, waves_WJ = (
        _float(np.cos(math.pi * (np.arange(axis)[:, None] + 0.5) / axis * orders))
        for axis in places_HW2.shape[:2]
    )
    bend_2HW = waves_HJ @ _float(heights_2JJ) @ waves_WJ.T
    return steady_HW2 + bend_2HW.movedim(0, -1)


def _texture(picture_3NM: Tensor, middle_2: NDArray[np.float64], rng: np.random.Generator) -> _OfPlaces:
    """The colours of a photograph that lies under the frame, at some scale, upright or turned."""
    size_2 = np.array(picture_3NM.shape[:0:-1])
    angle, scale = rng.uniform(-math.pi, math.pi) * (rng.random() < 0.5), rng.uniform(0.6, 1.3)
    sine, cosine = math.sin(angle), math.cos(angle)
    matrix_22 = scale * np.array([[cosine, -sine], [sine, cosine]])
    if rng.random() < 0.5:
        matrix_22[0] *= -1  # mirrored
    origin_2 = rng.uniform(0.2, 0.8, 2) * size_2 - matrix_22 @ middle_2
    # In units in which the photograph is from -1 to 1.
    matrix_22, origin_2 = 2 * matrix_22 / size_2[:, None], 2 * origin_2 / size_2 - 1
    turned_22, shift_2 = _float(matrix_22.T), _float(origin_2)

    def colours(at_2HW2: Tensor) -> Tensor:
        return torch.nn.functional.grid_sample(
            picture_3NM.expand(len(at_2HW2), -1, -1, -1),
            at_2HW2 @ turned_22 + shift_2,
            mode="bilinear",
            padding_mode="reflection",
            align_corners=False,
        )

    return colours


def _shape(centre_2: NDArray[np.float64], radius: float, rng: np.random.Generator) -> _OfPlaces:
    """A blob: how far its edge is from the centre is a sum of waves around it."""
    orders = range(2, 6)
    heights = [rng.uniform(0, 0.5 / order) * np.exp(1j * rng.uniform(0, 2 * math.pi)) for order in orders]
    origin_2 = _float(centre_2)

    def cover(at: Tensor) -> Tensor:
        from_centre = torch.view_as_complex(at - origin_2)
        distance = from_centre.abs()
        around = from_centre / distance.clamp(min=1e-6)
        wave = around * around
        edge = 1 + (complex(heights[0]) * wave).real
        for height in heights[1:]:
            wave = wave * around
            edge = edge + (complex(height) * wave).real
        return (radius * edge - distance + 0.5).clamp(0, 1)

    return cover


def _float(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()
