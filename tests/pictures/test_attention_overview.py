from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

from perceiver_io.adapters.text import TextAdapter
from perceiver_io.attention_maps import AttentionMap
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.encoder import EncoderConfig
from perceiver_io.model import PerceiverIO
from perceiver_io.pictures.attention_overview import attention_overview_figure, draw_attention_overview
from perceiver_io.vector_decoders import ClassificationDecoder
from tests.pictures.random_maps import make_maps


def panels(maps: list[AttentionMap], latents: list[int] | None = None) -> dict[str, Axes]:
    return {
        axes.get_title(loc="left"): axes for axes in attention_overview_figure(maps, latents=latents).axes
    }


def drawn(axes: Axes) -> np.ndarray:
    return np.asarray(axes.get_images()[0].get_array())


def test_panels_hold_the_weights_averaged_over_heads() -> None:
    maps = make_maps({"image": (4, 5), "text": (7,)}, num_maps=2)
    found = panels(maps)
    assert list(found) == [
        "Cross-attend 1: image",
        "Cross-attend 1: text",
        "Cross-attend 2: image",
        "Cross-attend 2: text",
    ]
    for index, one in enumerate(maps):
        for name, weights in one.weights.items():
            expected = weights[0].numpy().mean(axis=0).reshape(3, -1)
            np.testing.assert_allclose(drawn(found[f"Cross-attend {index + 1}: {name}"]), expected, rtol=1e-6)


def test_a_panel_says_how_much_attention_its_input_gets() -> None:
    maps = make_maps({"image": (4, 5), "text": (7,)})
    found = panels(maps)
    shares = []
    for name, weights in maps[0].weights.items():
        mean = weights[0].double().numpy().mean(axis=0).reshape(3, -1)
        share, brightest = mean.sum(axis=1).mean(), mean.max()
        note = found[f"Cross-attend 1: {name}"].get_title(loc="right")
        assert note == f"{100 * share:.3g} % of the attention, brightest {100 * brightest:.2g} %"
        assert found[f"Cross-attend 1: {name}"].get_images()[0].get_clim() == pytest.approx((0, brightest))
        shares.append(share)
    assert sum(shares) == pytest.approx(1, abs=1e-6)


def test_chosen_latents_are_drawn_in_the_order_asked_for() -> None:
    maps = make_maps({"text": (7,)}, num_latents=6)
    axes = panels(maps, latents=[4, 0])["Cross-attend 1: text"]
    expected = maps[0].weights["text"][0].numpy().mean(axis=0)[[4, 0]]
    np.testing.assert_allclose(drawn(axes), expected, rtol=1e-6)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["4", "0"]


def test_of_many_latents_the_first_are_drawn() -> None:
    maps = make_maps({"text": (7,)}, num_latents=100)
    assert drawn(panels(maps)["Cross-attend 1: text"]).shape == (64, 7)


@pytest.mark.parametrize("num_elements", [512, 513, 1000, 1024, 5000])
def test_many_elements_are_drawn_as_sums_of_neighbours(num_elements: int) -> None:
    maps = make_maps({"text": (num_elements,)})
    axes = panels(maps)["Cross-attend 1: text"]
    values, expected = drawn(axes), maps[0].weights["text"][0].double().numpy().mean(axis=0)
    assert values.shape == (3, 512)
    # However many elements a column stands for, none is lost and none is in two.
    np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-5)
    starts = [column * num_elements // 512 for column in range(513)]
    sums = [expected[:, start:stop].sum(axis=1) for start, stop in pairwise(starts)]
    np.testing.assert_allclose(values, np.stack(sums, axis=1), rtol=1e-4)
    assert axes.get_images()[0].get_extent() == [0, num_elements, 3, 0]


def test_masked_elements_are_dark() -> None:
    maps = make_maps({"text": (7,)})
    maps[0].weights["text"][..., 4:] = 0
    assert (drawn(panels(maps)["Cross-attend 1: text"])[:, 4:] == 0).all()


@pytest.mark.parametrize(
    ("change", "latents", "message"),
    [
        (lambda maps: maps.clear(), None, "got no maps"),
        (
            lambda maps: maps[0].weights.update(text=torch.zeros(2, 1, 3, 7)),
            None,
            "one sample at a time, got maps of 2",
        ),
        (lambda maps: maps[0].weights["text"].fill_(float("nan")), None, "not finite"),
        (lambda maps: None, [0, 3, -1], r"maps are of 3 latents, got the latents \[3, -1\]"),
    ],
)
def test_refuses_what_cannot_be_drawn(
    change: object, latents: list[int] | None, message: str, tmp_path: Path
) -> None:
    maps = make_maps({"text": (7,)})
    change(maps)  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        draw_attention_overview(maps, tmp_path / "maps.png", latents=latents)
    assert list(tmp_path.iterdir()) == []


def test_draws_the_maps_of_a_model(tmp_path: Path) -> None:
    model = PerceiverIO(
        PerceiverIOConfig(
            inputs={"text": TextAdapter.Config(vocab_size=9, max_length=6, num_channels=8)},
            encoder=EncoderConfig(num_latents=4, latent_channels=8, num_cross_attends=2, num_blocks=2),
            outputs={"label": ClassificationDecoder.Config(num_classes=2)},
        )
    ).eval()
    maps = model.attention_maps({"text": torch.randint(9, (1, 6))})
    draw_attention_overview(maps, tmp_path / "maps.png", title="a $title_ with signs")
    with Image.open(tmp_path / "maps.png") as picture:
        assert picture.format == "PNG" and picture.width > 400 and picture.height > 200
    found = panels(maps)
    assert list(found) == ["Cross-attend 1: text", "Cross-attend 2: text"]
    np.testing.assert_allclose(drawn(found["Cross-attend 2: text"]).sum(axis=1), 1, rtol=1e-5)
