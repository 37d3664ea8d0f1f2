"""Images that were read value by value, and rows of images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from PIL import Image

from perceiver_io.pictures.attention_view import AttentionView, view_figure
from perceiver_io.pictures.seen_pixel_sequence import SeenPixelSequence
from perceiver_io.tasks.modalities.image_rows import draw_image_rows
from tests.pictures.random_maps import make_maps

RNG = np.random.default_rng(0)


def drawn(figure: Figure, label: str) -> np.ndarray:
    (axes,) = [
        one for one in figure.axes if str(one.get_label()).startswith(f"tokens: Cross-attend: {label}")
    ]
    return np.asarray(axes.get_images()[-1].get_array())


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 3)])
@pytest.mark.parametrize("num_rows", [3, 2])
def test_each_pixel_has_the_attention_of_its_values(shape: tuple[int, ...], num_rows: int) -> None:
    seen = SeenPixelSequence(pixels=RNG.integers(0, 255, shape, dtype=np.uint8))
    row = int(np.prod(shape[1:]))
    maps = make_maps({"tokens": (1 + num_rows * row,), "label": (1,)})
    figure = view_figure(AttentionView(maps=maps, seen={"tokens": seen}), latents=[1])
    figure.savefig(io.BytesIO(), format="png", dpi=20)  # warnings are errors
    weights_NT = maps[0].weights["tokens"][0].double().numpy().mean(axis=0)
    for label, weights_T in (("mean", weights_NT.mean(axis=0)), ("latent 1", weights_NT[1])):
        for index in range(num_rows):
            of_row = weights_T[1 + index * row : 1 + (index + 1) * row].reshape(4, -1).sum(axis=1)
            assert_allclose(drawn(figure, label)[index], of_row, rtol=1e-5)
        assert not drawn(figure, label)[num_rows:].any()


def test_what_does_not_belong_together() -> None:
    with pytest.raises(ValueError, match="pixels must be a numpy array"):
        SeenPixelSequence(pixels=[[0]])  # type: ignore[arg-type]
    view = AttentionView(
        maps=make_maps({"tokens": (14,)}),
        seen={"tokens": SeenPixelSequence(pixels=np.zeros((3, 4), np.uint8))},
    )
    with pytest.raises(ValueError, match=r"has the grid \(14,\), but what was seen has \(13,\)"):
        view_figure(view)


def test_rows_of_images(tmp_path: Path) -> None:
    grey = torch.full((1, 4, 8), 77, dtype=torch.uint8)
    red = torch.tensor([200, 10, 10], dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 4)
    draw_image_rows([("greys", [grey] * 3), ("reds", [red])], tmp_path / "rows.png", tile=32)
    with Image.open(tmp_path / "rows.png") as picture:
        pixels = np.asarray(picture)
    is_grey, is_red = (pixels == 77).all(axis=-1), (pixels == (200, 10, 10)).all(axis=-1)
    assert is_grey.sum() == 3 * 32 * 16 and is_red.sum() == 16 * 32
    assert np.nonzero(is_grey)[0].max() < np.nonzero(is_red)[0].min()
