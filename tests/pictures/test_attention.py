from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.pictures.attention import attention_figure, draw_attention
from perceiver_io.pictures.input_attention import interesting_latents
from perceiver_io.tasks import image_classification as ic


def make_maps(
    num_maps: int = 2,
    *,
    grid: tuple[int, int] = (8, 8),
    num_heads: int = 2,
    num_latents: int = 6,
    num_images: int = 1,
) -> list[AttentionMap]:
    generator = torch.Generator().manual_seed(num_maps)
    shape = (num_images, num_heads, num_latents, *grid)
    maps = []
    for _ in range(num_maps):
        content, position = (torch.randn(shape, generator=generator) * scale + 3 for scale in (1.0, 2.0))
        weights = (content + position).flatten(-2).softmax(dim=-1).view(shape)
        maps.append(
            AttentionMap(
                weights={"image": weights},
                content={"image": content},
                position={"image": position},
                bias=torch.zeros(shape[:3]),
            )
        )
    return maps


def make_image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def read_png(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.convert("RGB")


def panels(figure: Figure) -> dict[str, Axes]:
    return {str(axes.get_label()): axes for axes in figure.axes if axes.get_label() != "<colorbar>"}


def drawn(figure: Figure, panel: str) -> np.ndarray:
    return np.asarray(panels(figure)[panel].get_images()[-1].get_array())


def test_panels_hold_the_maps() -> None:
    maps = make_maps(2)
    figure = attention_figure(make_image(8, 8), maps, latents=[4, 0])
    for index, attention_map in enumerate(maps):
        name = f"Cross-attend {index + 1} of 2"
        weights, content, position = (
            part["image"][0].numpy()
            for part in (attention_map.weights, attention_map.content, attention_map.position)
        )
        np.testing.assert_allclose(
            drawn(figure, f"{name}: mean of latents: weights"), weights.mean(axis=(0, 1)), rtol=1e-5
        )
        for latent in (4, 0):
            label = f"{name}: latent {latent}"
            np.testing.assert_allclose(
                drawn(figure, f"{label}: weights"), weights[:, latent].mean(axis=0), rtol=1e-5
            )
            for part, values in (("content", content), ("position", position)):
                expected = values[:, latent].mean(axis=0)
                expected = expected - expected.mean()
                np.testing.assert_allclose(drawn(figure, f"{label}: {part}"), expected, atol=1e-5)
    assert not any("latent 1:" in label for label in panels(figure))


def test_drawn_parts_explain_the_drawn_weights() -> None:
    figure = attention_figure(make_image(8, 8), make_maps(1, num_heads=1), latents=[3])
    logits = drawn(figure, "Cross-attend: latent 3: content") + drawn(
        figure, "Cross-attend: latent 3: position"
    )
    weights = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(drawn(figure, "Cross-attend: latent 3: weights"), weights, rtol=1e-4)


def test_content_and_position_share_a_scale_around_zero() -> None:
    figure = attention_figure(make_image(8, 8), make_maps(1), latents=[2])
    for column in ("mean of latents", "latent 2"):
        parts = [f"Cross-attend: {column}: {part}" for part in ("content", "position")]
        largest = max(np.abs(drawn(figure, part)).max() for part in parts)
        for part in parts:
            assert panels(figure)[part].get_images()[0].get_clim() == pytest.approx((-largest, largest))


@pytest.mark.parametrize(
    ("num_maps", "expected"),
    [
        (1, ["Cross-attend"]),
        (2, ["Cross-attend 1 of 2", "Cross-attend 2 of 2"]),
        (8, ["Cross-attend 1 of 8", "Cross-attend 2 of 8", "Cross-attend 8 of 8"]),
    ],
)
def test_draws_first_second_and_last_cross_attend(num_maps: int, expected: list[str]) -> None:
    figure = attention_figure(make_image(8, 8), make_maps(num_maps), latents=[])
    names = list(dict.fromkeys(label.split(": ")[0] for label in panels(figure)))
    assert names == expected
    assert [
        axes.get_title(loc="left") for label, axes in panels(figure).items() if label.endswith(": image")
    ] == expected


def test_last_group_is_the_last_map() -> None:
    maps = make_maps(8)
    figure = attention_figure(make_image(8, 8), maps, latents=[1])
    np.testing.assert_allclose(
        drawn(figure, "Cross-attend 8 of 8: latent 1: weights"),
        maps[7].weights["image"][0, :, 1].mean(dim=0).numpy(),
        rtol=1e-5,
    )


@pytest.mark.parametrize("shape", [(50, 37), (37, 50, 3), (8, 120), (300, 300, 3)])
def test_every_map_covers_the_whole_image(shape: tuple[int, ...], tmp_path: Path) -> None:
    image, maps = make_image(*shape), make_maps(1, grid=(7, 5))
    figure = attention_figure(image, maps, latents=[0])
    for label, axes in panels(figure).items():
        for layer in axes.get_images():
            assert layer.get_extent() == [0, shape[1], shape[0], 0], label
    np.testing.assert_array_equal(drawn(figure, "Cross-attend: image"), image)
    assert drawn(figure, "Cross-attend: latent 0: weights").shape == (7, 5)
    draw_attention(image, maps, tmp_path / "maps.png", latents=[0])
    read_png(tmp_path / "maps.png")


def test_panel_shows_each_element_where_it_is() -> None:
    weights = torch.zeros(1, 1, 1, 3, 5)
    weights[..., 2, 4] = 1.0
    maps = make_maps(1, grid=(3, 5), num_heads=1, num_latents=1)
    maps = [
        AttentionMap(
            weights={"image": weights}, content=maps[0].content, position=maps[0].position, bias=maps[0].bias
        )
    ]
    figure = attention_figure(np.zeros((30, 50), np.uint8), maps, latents=[0])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba()).astype(int)
    axes = panels(figure)["Cross-attend: latent 0: weights"]

    def brightness(x: float, y: float) -> int:
        column, row = axes.transData.transform((x, y))
        return int(pixels[pixels.shape[0] - 1 - round(row), round(column), :3].sum())

    assert brightness(45, 25) > 500
    assert brightness(5, 5) < 150 and brightness(45, 5) < 150 and brightness(5, 25) < 150


def test_masked_elements_are_left_out() -> None:
    maps = make_maps(1, num_heads=1)
    weights, content = maps[0].weights["image"].clone(), maps[0].content["image"].clone()
    weights[..., :4] = 0
    content[..., :4] = 1000
    maps = [
        AttentionMap(
            weights={"image": weights},
            content={"image": content},
            position=maps[0].position,
            bias=maps[0].bias,
        )
    ]
    figure = attention_figure(make_image(8, 8), maps, latents=[0])
    layer = panels(figure)["Cross-attend: latent 0: content"].get_images()[0]
    array = layer.get_array()
    assert np.ma.getmaskarray(array)[:, :4].all() and not np.ma.getmaskarray(array)[:, 4:].any()
    expected = content[0, 0, 0, :, 4:].numpy()
    np.testing.assert_allclose(np.asarray(array)[:, 4:], expected - expected.mean(), atol=1e-5)
    assert layer.get_clim()[1] < 100


def test_large_grid_does_not_drown_in_one_element() -> None:
    weights = torch.full((1, 1, 1, 64, 64), 0.5 / 4096)
    weights[..., 10, 10] += 0.5
    zeros = {"image": torch.zeros_like(weights)}
    maps = [
        AttentionMap(weights={"image": weights}, content=zeros, position=zeros, bias=torch.zeros(1, 1, 1))
    ]
    figure = attention_figure(make_image(64, 64), maps, latents=[0])
    layer = panels(figure)["Cross-attend: latent 0: weights"].get_images()[-1]
    assert layer.get_clim() == pytest.approx((0, 1 / 4096))


def test_interesting_latents_are_the_sharpest_of_the_last_cross_attend() -> None:
    maps = make_maps(2, num_heads=1, num_latents=4)
    sharpness = torch.tensor([1.0, 10.0, 0.0, 3.0])[:, None, None]
    weights = (
        (torch.randn(1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * sharpness)
        .flatten(-2)
        .softmax(dim=-1)
        .unflatten(-1, (8, 8))
    )
    last = AttentionMap(
        weights={"image": weights}, content=maps[1].content, position=maps[1].position, bias=maps[1].bias
    )
    assert interesting_latents([maps[0], last], 3) == [1, 3, 0]
    assert interesting_latents([maps[0], last], 9) == [1, 3, 0, 2]
    figure = attention_figure(make_image(8, 8), [maps[0], last])
    assert "Cross-attend 2 of 2: latent 1: weights" in panels(figure)


def test_draws_the_maps_of_a_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ic.PerceiverIOForImageClassification(
        ic.config(variant="tiny", size=(8, 8), image_channels=1, num_classes=10)
    )
    image = Image.fromarray(make_image(8, 8))
    maps = model.attention_maps(torch.from_numpy(np.array(image))[None, None] / 127.5 - 1)
    draw_attention(image, maps, tmp_path / "maps.png", title="a $title_ with signs")
    picture = read_png(tmp_path / "maps.png")
    assert picture.width > 500 and picture.height > 500
    assert 5_000 < (tmp_path / "maps.png").stat().st_size < 300_000


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "RGBA", "CMYK"])
def test_takes_pil_images(mode: str) -> None:
    image = Image.fromarray(make_image(8, 8, 3)).convert(mode)
    figure = attention_figure(image, make_maps(1), latents=[])
    assert drawn(figure, "Cross-attend: image").shape == ((8, 8) if mode in ("1", "L") else (8, 8, 3))


@pytest.mark.parametrize(
    ("image", "maps", "latents", "message"),
    [
        (np.zeros((8, 8)), make_maps(1), None, "got float64"),
        (make_image(3, 8, 8), make_maps(1), None, r"got uint8 \(3, 8, 8\)"),
        (make_image(8, 8), [], None, "got no maps"),
        (make_image(8, 8), make_maps(1, num_images=2), None, "one image at a time"),
        (make_image(8, 8), make_maps(1), [0, 6, -1], r"got the latents \[6, -1\]"),
    ],
)
def test_refuses_what_cannot_be_drawn(
    image: np.ndarray, maps: list[AttentionMap], latents: list[int] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        draw_attention(image, maps, tmp_path / "maps.png", latents=latents)
    assert not any(tmp_path.iterdir())


def test_refuses_maps_of_a_broken_model() -> None:
    maps = make_maps(1)
    maps[0].weights["image"][0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        attention_figure(make_image(8, 8), maps)


def test_file_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    draw_attention(make_image(8, 8), make_maps(1), path, latents=[1])
    assert len(read_png(path).getcolors(1 << 20) or []) > 20
    assert path.stat().st_size > 5_000
    assert list(tmp_path.iterdir()) == [path]


def test_needs_no_pyplot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it fails
    draw_attention(make_image(8, 8), make_maps(1), tmp_path / "picture.png", latents=[1])
