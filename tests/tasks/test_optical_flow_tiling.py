"""Tiles: they cover every pixel, overlap enough, and blend as a plain loop does."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from perceiver_io.tasks.optical_flow.tiling import compute_tiled, tile_starts, tile_weights


@given(length=st.integers(1, 400), tile=st.integers(1, 60), data=st.data())
def test_tiles_cover_an_axis_and_overlap(length: int, tile: int, data: st.DataObject) -> None:
    min_overlap = data.draw(st.integers(0, tile - 1))
    starts = tile_starts(length, tile, min_overlap=min_overlap)
    covered = {position for start in starts for position in range(start, start + tile)}
    assert covered >= set(range(length))
    assert starts[0] == 0 and all(a < b for a, b in pairwise(starts))
    assert all(a + tile - b >= min_overlap for a, b in pairwise(starts))
    assert starts[-1] + tile == max(length, tile)  # flush with the border
    # With one tile less, and the smallest overlap, the end would not be reached.
    assert len(starts) == 1 or (len(starts) - 2) * (tile - min_overlap) + tile < length


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        ((368, 496), [0], [0]),
        ((436, 1024), [0, 68], [0, 476, 528]),  # Sintel
        ((375, 1242), [0, 7], [0, 476, 746]),  # KITTI
        ((500, 741), [0, 132], [0, 245]),
        ((100, 100), [0], [0]),
    ],
)
def test_tiles_of_the_published_model(size: tuple[int, int], rows: list[int], columns: list[int]) -> None:
    """Worked out by hand: steps of 348 and 476 pixels until the rest fits, the last flush."""
    assert tile_starts(size[0], 368, min_overlap=20) == rows
    assert tile_starts(size[1], 496, min_overlap=20) == columns


@given(length=st.integers(368, 3000))
def test_tiles_are_those_of_the_original(length: int) -> None:
    """Its rule: from 0 in steps of tile - overlap, as long as they begin inside; then the last is moved back.

    Where the second last reaches the border already, it has one more than it takes, and sticks out with another.
    """
    theirs = list(range(0, length, 348))
    theirs[-1] = length - 368
    ours = tile_starts(length, 368, min_overlap=20)
    if len(theirs) > 1 and theirs[-2] + 368 >= length:
        assert ours == [*theirs[:-2], length - 368]
    else:
        assert ours == theirs


@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_weights_are_distances_to_the_nearest_edge(height: int, width: int) -> None:
    weights = tile_weights((height, width))
    assert weights.shape == (height, width) and weights.min() == 1
    for y, x in [(0, 0), (height // 2, width // 2), (height - 1, width // 3), (height // 3, width - 1)]:
        assert weights[y, x] == min(y + 1, height - y, x + 1, width - x)


def recognise(tiles: Tensor, mask: Tensor | None) -> Tensor:
    """A made-up flow of a tile that depends on all of it, so that overlapping tiles disagree."""
    assert mask is None or not tiles[(~mask)[:, None].expand_as(tiles)].any()
    mean = tiles.mean(dim=(-2, -1), keepdim=True)
    return torch.stack([tiles[:, 0] + mean[:, 0], tiles[:, 0] * mean[:, 0]], dim=1)


def plain_loop(image: np.ndarray, tile: tuple[int, int], min_overlap: int) -> np.ndarray:
    """What the original describes, one pixel after the other, in float64; the image is at least a tile."""
    (height, width), (h, w) = image.shape, tile
    corners = []
    for length, side in ((height, h), (width, w)):
        starts = [0]
        while starts[-1] + side < length:
            starts.append(min(starts[-1] + side - min_overlap, length - side))
        corners.append(starts)
    total, count = np.zeros((2, height, width)), np.zeros((height, width))
    for y in corners[0]:
        for x in corners[1]:
            piece = image[y : y + h, x : x + w]
            flow = np.stack([piece + piece.mean(), piece * piece.mean()])
            for row in range(h):
                for column in range(w):
                    weight = min(row + 1, h - row, column + 1, w - column)
                    total[:, y + row, x + column] += weight * flow[:, row, column]
                    count[y + row, x + column] += weight
    return total / count


@pytest.mark.parametrize(
    ("size", "tile", "min_overlap"),
    [((17, 23), (8, 10), 3), ((8, 31), (8, 10), 0), ((20, 10), (9, 10), 8), ((8, 10), (8, 10), 3)],
)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_blends_as_a_plain_loop(
    size: tuple[int, int], tile: tuple[int, int], min_overlap: int, batch_size: int
) -> None:
    image = torch.randn(1, *size)
    flow = compute_tiled(recognise, image, tile_size=tile, min_overlap=min_overlap, batch_size=batch_size)
    expected = plain_loop(image[0].double().numpy(), tile, min_overlap)
    np.testing.assert_allclose(flow.numpy(), expected, rtol=1e-5, atol=1e-5)


@given(height=st.integers(1, 50), width=st.integers(1, 50), batch_size=st.integers(1, 5))
def test_a_constant_flow_stays_constant(height: int, width: int, batch_size: int) -> None:
    sizes = []

    def constant(tiles: Tensor, mask: Tensor | None) -> Tensor:
        sizes.append(tiles.shape)
        return torch.tensor([3.0, -0.25])[:, None, None].expand(len(tiles), 2, 12, 16)

    flow = compute_tiled(
        constant, torch.zeros(2, 3, height, width), tile_size=(12, 16), min_overlap=5, batch_size=batch_size
    )
    assert flow.shape == (2, height, width)
    torch.testing.assert_close(flow, torch.tensor([3.0, -0.25])[:, None, None].expand_as(flow))
    assert all(shape[1:] == (2, 3, 12, 16) and shape[0] <= batch_size for shape in sizes)


def test_smaller_images_are_padded_and_the_padding_is_masked() -> None:
    image = torch.randn(2, 3, 5, 20) + 10

    def look(tiles: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is not None and mask.shape == (len(tiles), 8, 10)
        assert mask[:, :5].all() and not mask[:, 5:].any()
        assert not tiles[..., 5:, :].any() and tiles[..., :5, :].all()
        return tiles[:, 0, :2]

    flow = compute_tiled(look, image, tile_size=(8, 10), min_overlap=2)
    torch.testing.assert_close(flow, image[0, :2])


def test_masks_are_given_only_where_they_are_needed() -> None:
    def look(tiles: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is None
        return tiles[:, :2]

    image = torch.randn(2, 9, 30)
    torch.testing.assert_close(compute_tiled(look, image, tile_size=(8, 10), min_overlap=2), image)


def test_a_bar_for_many_tiles(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from perceiver_io.tasks.optical_flow import tiling

    bars = []

    class Bar(tiling.tqdm):  # type: ignore[misc]
        def __init__(self, **settings: object) -> None:
            bars.append((settings["total"], settings["disable"]))
            super().__init__(**settings | {"disable": True})

    monkeypatch.setattr(tiling, "tqdm", Bar)
    for width, progress in ((10, True), (70, True), (70, False)):
        compute_tiled(
            lambda tiles, mask: tiles,
            torch.zeros(2, 8, width),
            tile_size=(8, 10),
            min_overlap=2,
            progress=progress,
        )
    assert bars == [(1, True), (9, False), (9, True)]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_overlap": 8}, "overlap by 0 to 7, got min_overlap=8"),
        ({"min_overlap": -1}, "got min_overlap=-1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"image": torch.zeros(2, 0, 5)}, "at least 1, got 0 for the image"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    arguments = {"image": torch.zeros(2, 20, 20), "tile_size": (8, 10), "min_overlap": 2} | settings
    with pytest.raises(ValueError, match=message):
        compute_tiled(lambda tiles, mask: tiles, **arguments)  # type: ignore[arg-type]
