"""Images of any size through a model of one size: overlapping tiles whose results are blended.

Shape legend: B tiles at once, H and W height and width of the image, h and w of a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from tqdm.auto import tqdm

__all__ = ["compute_tiled", "tile_starts", "tile_weights"]

_FEW_TILES = 4


def tile_starts(length: int, tile_length: int, *, min_overlap: int) -> list[int]:
    """Returns where the tiles along one axis begin: as few as cover it, each as far from the one before as it may.

    The last tile ends with the axis, and so may overlap more. An axis shorter than a tile has one tile, which sticks
    out. These are the tiles of the original release, less those that it lays twice: it has one more wherever the
    second last ends with the axis already.

    Args:
        length: Length of the axis.
        tile_length: Length of a tile.
        min_overlap: How much two neighbours share at least.

    Raises:
        ValueError: A length is not positive, or the overlap is negative or a whole tile.
    """
    if length < 1 or tile_length < 1:
        raise ValueError(
            f"Lengths must be at least 1, got {length} for the image and {tile_length} for a tile."
        )
    if not 0 <= min_overlap < tile_length:
        raise ValueError(
            f"Tiles of {tile_length} pixels can overlap by 0 to {tile_length - 1}, got min_overlap={min_overlap}."
        )
    last = max(0, length - tile_length)
    return [*range(0, last, tile_length - min_overlap), last]


def tile_weights(tile_size: tuple[int, int]) -> Tensor:
    """Returns how much each pixel of a tile counts: its distance to the nearest edge, 1 at the edge itself.

    Args:
        tile_size: Height and width of a tile.

    Returns:
        (h, w), positive, float32.
    """
    from_edge_h, from_edge_w = (
        torch.minimum(torch.arange(1, side + 1), torch.arange(side, 0, -1)) for side in tile_size
    )
    return torch.minimum(from_edge_h[:, None], from_edge_w).float()


def compute_tiled(
    compute: Callable[[Tensor, Tensor | None], Tensor],
    image: Tensor,
    *,
    tile_size: tuple[int, int],
    min_overlap: int = 20,
    batch_size: int = 1,
    progress: bool = False,
) -> Tensor:
    """Computes the flow of an image tile by tile, and blends the tiles by `tile_weights`.

    An image that is smaller than a tile is padded with zeros at its right and lower side, and the padding masked. So
    the model sees what is there, at its true scale, and nothing that was made up: replicated borders would be
    textures without a motion of their own, and a resized image would have a flow of another scale.

    Args:
        compute: Takes tiles (B, …, h, w) and a mask (B, h, w), True where a pixel is real or None if all are; returns
            the flow (B, 2, h, w).
        image: (…, H, W): one image, or several of one scene.
        tile_size: Height and width of a tile.
        min_overlap: How many pixels neighbouring tiles share at least.
        batch_size: How many tiles `compute` gets at once.
        progress: Whether to show a bar on stderr if there are more than a few tiles.

    Returns:
        (2, H, W) in float32 on the CPU.

    Raises:
        ValueError: The overlap or the batch size is out of range, or the image is empty.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    size, (tile_height, tile_width) = image.shape[-2:], tile_size
    corners = list(
        product(
            *(tile_starts(*sides, min_overlap=min_overlap) for sides in zip(size, tile_size, strict=True))
        )
    )
    missing = [max(0, tile - side) for side, tile in zip(size, tile_size, strict=True)]
    mask_hw = None
    if any(missing):
        image = torch.nn.functional.pad(image, (0, missing[1], 0, missing[0]))
        mask_hw = torch.zeros(tile_size, dtype=torch.bool, device=image.device)
        mask_hw[: size[0], : size[1]] = True
    weights_hw = tile_weights(tile_size)
    padded_size = image.shape[-2:]
    total_2HW, count_HW = torch.zeros(2, *padded_size), torch.zeros(padded_size)
    bar = tqdm(
        total=len(corners),
        desc="tiles",
        disable=not progress or len(corners) <= _FEW_TILES,
        delay=1,
        leave=False,
    )
    with bar:
        for first in range(0, len(corners), batch_size):
            batch = corners[first : first + batch_size]
            tiles = torch.stack([image[..., y : y + tile_height, x : x + tile_width] for y, x in batch])
            masks = None if mask_hw is None else mask_hw.expand(len(batch), -1, -1)
            flows_B2hw = compute(tiles, masks).float().cpu()
            for (y, x), flow_2hw in zip(batch, flows_B2hw, strict=True):
                window = (..., slice(y, y + tile_height), slice(x, x + tile_width))
                total_2HW[window] += flow_2hw * weights_hw
                count_HW[window] += weights_hw
            bar.update(len(batch))
    return (total_2HW / count_HW)[:, : size[0], : size[1]]
