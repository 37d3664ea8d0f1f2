"""What holds for the picture of any inputs; each kind of input has a file of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.pictures.attention import attention_figure
from perceiver_io.pictures.attention_view import AttentionView, draw_view, view_figure
from perceiver_io.pictures.input_attention import interesting_latents
from perceiver_io.pictures.panel_sheet import PanelSheet
from perceiver_io.pictures.seen import Seen
from perceiver_io.pictures.seen_image import SeenImage
from perceiver_io.pictures.seen_points import SeenPoints
from perceiver_io.pictures.seen_series import SeenSeries
from perceiver_io.pictures.seen_sound import SeenSound
from perceiver_io.pictures.seen_spectrogram import SeenSpectrogram
from perceiver_io.pictures.seen_table import SeenTable
from perceiver_io.pictures.seen_text import SeenText
from perceiver_io.pictures.seen_video import SeenVideo
from tests.pictures.random_maps import make_maps

RNG = np.random.default_rng(0)

SEEN: dict[str, tuple[tuple[int, ...], Seen]] = {
    "audio": ((6,), SeenSound(samples=RNG.normal(size=24), sample_rate=8)),
    "spectrogram": ((3, 2), SeenSpectrogram(values=RNG.normal(size=(6, 4)), seconds_per_frame=0.1)),
    "image": ((4, 5), SeenImage(pixels=RNG.integers(0, 255, (8, 10, 3), dtype=np.uint8))),
    "video": (
        (2, 2, 3),
        SeenVideo(frames=RNG.integers(0, 255, (4, 4, 6, 3), dtype=np.uint8), frame_rate=25),
    ),
    "cloud": ((7,), SeenPoints(coordinates=RNG.normal(size=(7, 3)))),
    "text": ((5,), SeenText(pieces=list("naïve"))),
    "table": ((3,), SeenTable(names=["a", "b", "c"], values=["1", "2", ""])),
    "series": ((4,), SeenSeries(times=np.arange(4.0), values=RNG.normal(size=(4, 2)), names=["a", "b"])),
}


def make_view(*names: str, num_maps: int = 2, title: str | None = None) -> AttentionView:
    maps = make_maps({name: SEEN[name][0] for name in names}, num_maps=num_maps)
    return AttentionView(maps=maps, seen={name: SEEN[name][1] for name in names}, title=title)


def panels(figure: Figure) -> dict[str, Axes]:
    return {str(axes.get_label()): axes for axes in figure.axes}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def means(maps: list[AttentionMap], name: str) -> np.ndarray:
    return maps[0].weights[name][0].double().numpy().mean(axis=0)


def assert_nothing_is_cut_off_or_overlaps(figure: Figure) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = canvas.get_width_height()
    written = [text.get_window_extent(renderer) for text in figure.texts if text.get_text()]
    drawn = [axes.get_window_extent(renderer) for axes in figure.axes]
    for one in written + drawn:
        assert -1 <= one.x0 and one.x1 <= width + 1 and -1 <= one.y0 and one.y1 <= height + 1
    for index, one in enumerate(written):
        for other in written[:index] + drawn:
            overlap_x = min(one.x1, other.x1) - max(one.x0, other.x0)
            overlap_y = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert overlap_x <= 1 or overlap_y <= 2


@pytest.mark.parametrize("name", SEEN)
def test_every_kind_is_drawn_beside_another(name: str) -> None:
    view = make_view(name, "table" if name != "table" else "image", num_maps=3, title="a title")
    figure = view_figure(view, latents=[2, 0])
    assert_nothing_is_cut_off_or_overlaps(figure)
    labels = set(panels(figure))
    assert len(labels) == len(figure.axes)
    for number in (1, 3):
        shares = {
            who: view.maps[number - 1].weights[name][0].numpy().mean(axis=0)[chosen].sum() / count
            for who, chosen, count in (("mean", slice(None), 3), ("latent 2", 2, 1), ("latent 0", 0, 1))
        }
        for who, share in shares.items():
            label = f"{name}: Cross-attend {number} of 3: {who} ({100 * share:.2g} %)"
            assert any(found.startswith(label) for found in labels), (label, labels)
    assert not any("2 of 3" in label for label in labels)


@pytest.mark.parametrize("name", [name for name in SEEN if name != "image"])
def test_every_kind_is_drawn_alone(name: str) -> None:
    figure = view_figure(make_view(name, num_maps=1), latents=[1])
    assert_nothing_is_cut_off_or_overlaps(figure)
    assert texts(figure)[0] == name  # all the attention there is: nothing to say
    assert any(label.startswith(f"{name}: Cross-attend: mean") for label in panels(figure))


def test_many_latents_need_more_lines() -> None:
    names = ("image", "table")
    maps = make_maps({name: SEEN[name][0] for name in names}, num_latents=108)
    view = AttentionView(maps=maps, seen={name: SEEN[name][1] for name in names})
    assert_nothing_is_cut_off_or_overlaps(view_figure(view, latents=range(100, 108)))


def test_writes_a_file_without_a_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it fails
    view = make_view("audio", "cloud", num_maps=1, title="a $title_ with signs, 日本 \x07")
    draw_view(view, tmp_path / "x.png", latents=[1])
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.format == "PNG" and picture.width > 800 and picture.height > 300


def test_the_heading_names_the_share_of_all_attention() -> None:
    view = make_view("audio", "text")
    for name in ("audio", "text"):
        first, last = (100 * one.weights[name].double().sum().item() / (2 * 3) for one in view.maps)
        heading = f"{name}: {first:.2g} % of the attention in cross-attend 1, {last:.2g} % in cross-attend 2"
        assert heading in texts(view_figure(view))
    view = make_view("audio", "text", num_maps=1)
    share = 100 * view.maps[0].weights["text"].double().sum().item() / (2 * 3)
    assert f"text: {share:.2g} % of the attention" in texts(view_figure(view))


def test_the_sharpest_latents_over_all_inputs_are_chosen() -> None:
    maps = make_maps({"audio": (6,), "text": (5,)}, num_latents=7)
    both = np.concatenate(
        [maps[-1].weights[name][0].numpy().mean(axis=0) for name in ("audio", "text")], axis=1
    )
    entropy = -(both * np.log(both)).sum(axis=1)
    expected = np.argsort(entropy)[:4].tolist()
    assert interesting_latents(maps, 4) == expected
    view = AttentionView(maps=maps, seen={name: SEEN[name][1] for name in ("audio", "text")})
    strips = [label for label in panels(view_figure(view)) if "audio: Cross-attend: latent" in label]
    assert [int(label.split("latent ")[1].split()[0]) for label in strips] == expected


def test_one_image_alone_is_the_picture_of_an_image() -> None:
    view = make_view("image", num_maps=1, title="x")
    expected = attention_figure(SEEN["image"][1].pixels, view.maps, input_name="image", title="x")  # type: ignore[attr-defined]
    found = view_figure(view)
    assert list(panels(found)) == list(panels(expected))
    np.testing.assert_array_equal(found.get_size_inches(), expected.get_size_inches())


def test_nothing_seen_is_bands_over_elements() -> None:
    maps = make_maps({"image": (4, 5), "text": (7,)})
    titles = [axes.get_title(loc="left") for axes in view_figure(AttentionView(maps=maps)).axes]
    assert titles == ["Cross-attend 1: image", "Cross-attend 1: text"]


def test_an_input_without_a_seen_is_strips_over_its_elements() -> None:
    maps = make_maps({"features": (2, 3), "text": (5,)})
    figure = view_figure(AttentionView(maps=maps, seen={"text": SEEN["text"][1]}), latents=[1])
    (strip,) = [
        axes for label, axes in panels(figure).items() if label.startswith("features: Cross-attend: latent 1")
    ]
    drawn = np.ravel(strip.collections[0].get_array())
    np.testing.assert_allclose(drawn, means(maps, "features")[1].ravel(), rtol=1e-5)
    assert strip.get_xlim() == (0, 6)


@pytest.mark.parametrize(
    "seen",
    [
        SeenSound(samples=np.zeros(24), sample_rate=8, num_real=0),
        SeenSound(samples=np.zeros(24), sample_rate=8),
    ],
)
def test_an_input_that_is_not_there(seen: Seen) -> None:
    maps = make_maps({"audio": (6,), "text": (5,)}, num_real={"audio": 0})
    figure = view_figure(AttentionView(maps=maps, seen={"audio": seen, "text": SEEN["text"][1]}))
    assert "audio: 0 % of the attention" in texts(figure)
    assert "There is nothing of it in this sample." in texts(figure)
    assert not any(label.startswith("audio") for label in panels(figure))


@pytest.mark.parametrize(
    ("change", "latents", "message"),
    [
        (lambda maps: maps.clear(), None, "got no maps"),
        (
            lambda maps: maps[0].weights.update(text=torch.zeros(2, 1, 3, 5)),
            None,
            "one sample at a time, got maps of 2",
        ),
        (lambda maps: maps[0].weights["text"].fill_(float("nan")), None, "not finite"),
        (lambda maps: None, [0, 3, -1], r"maps are of 3 latents, got the latents \[3, -1\]"),
        (lambda maps: maps[0].weights.pop("text"), None, r"no attention to \['text'\]: .* \['audio'\]"),
    ],
)
def test_refuses_what_cannot_be_drawn(
    change: object, latents: list[int] | None, message: str, tmp_path: Path
) -> None:
    view = make_view("audio", "text", num_maps=1)
    change(view.maps)  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        draw_view(view, tmp_path / "maps.png", latents=latents)
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_picture_that_is_too_high() -> None:
    sheet = PanelSheet()
    sheet.skip(399)
    with pytest.raises(
        ValueError, match="is higher than the 400 inches that can be drawn: choose fewer latents"
    ):
        sheet.skip(2)


WRONG_GRIDS: Mapping[str, tuple[int, ...]] = {
    "audio": (25,),
    "spectrogram": (3, 5),
    "image": (20,),
    "video": (2, 3),
    "cloud": (6,),
    "text": (4,),
    "table": (3, 1),
    "series": (2,),
}


@pytest.mark.parametrize("name", WRONG_GRIDS)
def test_refuses_attention_to_something_else(name: str) -> None:
    maps = make_maps({name: WRONG_GRIDS[name], "other": (2,)})
    with pytest.raises(ValueError, match=f"attention to '{name}' has the grid "):
        view_figure(AttentionView(maps=maps, seen={name: SEEN[name][1]}))
