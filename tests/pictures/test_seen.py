"""What the panels of each kind of input hold; tests/pictures/test_attention_view.py has what all share."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from perceiver_io.attention_maps import AttentionMap
from perceiver_io.pictures.attention_view import AttentionView, view_figure
from perceiver_io.pictures.seen import Seen
from perceiver_io.pictures.seen_image import SeenImage
from perceiver_io.pictures.seen_points import SeenPoints
from perceiver_io.pictures.seen_series import SeenSeries
from perceiver_io.pictures.seen_sound import SeenSound
from perceiver_io.pictures.seen_spectrogram import SeenSpectrogram
from perceiver_io.pictures.seen_table import SeenTable
from perceiver_io.pictures.seen_video import SeenVideo
from tests.pictures.random_maps import make_maps

RNG = np.random.default_rng(0)


def draw(seen: Seen, grid: tuple[int, ...], **settings: Any) -> tuple[Figure, np.ndarray]:
    """The figure of the mean and of latent 1, whose panels begin with "x: ", and the weights (N, *grid)."""
    maps = make_maps({"x": grid, "other": (2,)}, **settings)
    figure = view_figure(AttentionView(maps=maps, seen={"x": seen}), latents=[1])
    figure.savefig(io.BytesIO(), format="png", dpi=20)  # warnings are errors
    return figure, weights(maps[0])


def weights(one: AttentionMap) -> np.ndarray:
    return np.asarray(one.weights["x"][0].double().numpy().mean(axis=0))


def panels(figure: Figure, begin: str = "x: ") -> dict[str, Axes]:
    return {str(axes.get_label()): axes for axes in figure.axes if str(axes.get_label()).startswith(begin)}


def panel(figure: Figure, begin: str) -> Axes:
    (axes,) = panels(figure, begin).values()
    return axes


def strip(axes: Axes) -> tuple[np.ndarray, np.ndarray]:
    """The weights of a strip, and where they begin and end."""
    (mesh,) = axes.collections
    return np.ravel(mesh.get_array()), mesh.get_coordinates()[0, :, 0]


def overlay(axes: Axes) -> np.ndarray:
    return np.asarray(axes.get_images()[-1].get_array())


def notes(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def both(figure: Figure, weights_N: np.ndarray) -> list[tuple[Axes, np.ndarray]]:
    """The panels of the mean and of latent 1, with the weights that they draw."""
    return [
        (panel(figure, "x: Cross-attend: mean"), weights_N.mean(axis=0)),
        (panel(figure, "x: Cross-attend: latent 1"), weights_N[1]),
    ]


def test_sound_is_drawn_over_the_seconds_that_are_real() -> None:
    samples = RNG.normal(size=40)
    # Of ten patches of four samples, seven are real, the last of them half.
    figure, weights_NM = draw(
        SeenSound(samples=samples, sample_rate=20, num_real=26), (10,), num_real={"x": 7}
    )
    waveform = panel(figure, "x: waveform")
    assert_array_equal(waveform.lines[0].get_ydata(), samples[:26])
    assert_allclose(waveform.lines[0].get_xdata(), (np.arange(26) + 0.5) / 20)
    for axes, expected in both(figure, weights_NM):
        drawn, edges = strip(axes)
        assert_allclose(drawn, expected[:7], rtol=1e-5)
        assert_allclose(edges, np.arange(8) * 0.2)
        assert_allclose(axes.get_xlim(), waveform.get_xlim())
        assert_allclose(axes.get_xlim(), (0, 1.3))


def test_of_many_samples_their_range_is_drawn_and_of_many_patches_their_sums() -> None:
    samples = RNG.normal(size=120_000)
    figure, weights_NM = draw(SeenSound(samples=samples, sample_rate=16_000), (1_200,))
    (area,) = panel(figure, "x: waveform").collections
    drawn = area.get_paths()[0].vertices[:, 1]
    assert len(drawn) < 3_000
    for start in (0, 700, 119_900):
        assert np.isclose(drawn, samples[start : start + 100].max()).any()
        assert np.isclose(drawn, samples[start : start + 100].min()).any()
    for axes, expected in both(figure, weights_NM):
        values, edges = strip(axes)
        assert len(values) == 512 and edges[-1] == 7.5
        assert_allclose(values.sum(), expected.sum(), rtol=1e-4)


@pytest.mark.parametrize(("num_channels", "num_drawn"), [(2, 2), (6, 4)])
def test_channels_of_a_sound(num_channels: int, num_drawn: int) -> None:
    samples = RNG.normal(size=(num_channels, 12)).astype(np.float32)
    figure, _ = draw(SeenSound(samples=samples, sample_rate=3), (4,))
    for index, axes in enumerate(panels(figure, "x: channel").values()):
        assert axes.get_label() == f"x: channel {index + 1} of {num_channels}"
        assert_array_equal(axes.lines[0].get_ydata(), samples[index])
    assert index == num_drawn - 1


@pytest.mark.parametrize("grid", [(5, 4), (5,)], ids=["patches", "frames"])
def test_spectrogram_is_drawn_where_frames_are_real(grid: tuple[int, ...]) -> None:
    values = RNG.normal(size=(10, 8))
    # Of five patches of two frames, four are real, the last of them half.
    seen = SeenSpectrogram(values=values, seconds_per_frame=0.5, num_real=7)
    figure, weights_N = draw(seen, grid, num_real={"x": 4})
    seen_image = panel(figure, "x: seen").get_images()[0]
    assert_array_equal(seen_image.get_array(), values[:7].T)
    assert seen_image.get_extent() == [0, 3.5, 0, 8] and seen_image.origin == "lower"
    for axes, expected in both(figure, weights_N):
        picture, attention = axes.get_images()
        assert picture.get_array().shape == (8, 7)
        assert_allclose(overlay(axes), expected[:4].reshape(4, -1).T, rtol=1e-5)
        assert attention.get_extent() == [0, 4, 0, 8] and attention.origin == "lower"
        assert axes.get_xlim() == (0, 3.5)


def test_bands_of_a_spectrogram_have_names() -> None:
    bands = [f"{frequency} $Hz$ 日" for frequency in range(0, 900, 100)]
    figure, _ = draw(SeenSpectrogram(values=np.zeros((2, 9)), seconds_per_frame=1, bands=bands), (2, 3))
    axes = panel(figure, "x: seen")
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["0 $Hz$ □", "200 $Hz$ □", "400 $Hz$ □", "600 $Hz$ □", "800 $Hz$ □"]
    assert_array_equal(axes.get_yticks(), [0.5, 2.5, 4.5, 6.5, 8.5])


def test_video_shows_its_real_frames() -> None:
    frames = RNG.integers(0, 255, (12, 4, 6, 3), dtype=np.uint8)
    # Of six times of two frames, four are real, the last of them half.
    figure, weights_N = draw(
        SeenVideo(frames=frames, frame_rate=10, num_real=7), (6, 2, 3), num_real={"x": 4}
    )
    shown = panels(figure, "x: frame")
    assert list(shown) == [f"x: frame {time}" for time in range(4)]
    for time, axes in enumerate(shown.values()):
        assert_array_equal(axes.get_images()[0].get_array(), frames[2 * time])
        assert f"{0.2 * time:.2f} s" in notes(figure)
    for who, expected in (("mean", weights_N.mean(axis=0)), ("latent 1", weights_N[1])):
        found = panels(figure, f"x: Cross-attend: {who}")
        over_time = [axes for label, axes in found.items() if "frame" not in label]
        over_frames = [axes for label, axes in found.items() if "frame" in label]
        for time, axes in enumerate(over_frames):
            assert_allclose(overlay(axes), expected[time], rtol=1e-5)
            assert axes.get_images()[-1].get_extent() == [0, 6, 4, 0]
            assert axes.get_images()[-1].get_clim() == over_frames[0].get_images()[-1].get_clim()
        assert len(over_frames) == 4 and len(over_time) == 1
        drawn, edges = strip(over_time[0])
        assert_allclose(drawn, expected[:4].sum(axis=(1, 2)), rtol=1e-5)
        assert_allclose(edges, [0, 0.2, 0.4, 0.6, 0.8])
        assert_allclose(over_time[0].get_xlim(), (0, 0.7))


def test_frames_without_a_rate_are_called_by_their_number() -> None:
    figure, _ = draw(SeenVideo(frames=np.zeros((6, 2, 2, 3), np.uint8)), (3, 1, 1))
    assert {"frame 0", "frame 2", "frame 4"} <= set(notes(figure))


def test_of_a_long_video_some_frames_are_shown() -> None:
    frames = RNG.integers(0, 255, (50, 2, 2, 3), dtype=np.uint8)
    figure, _ = draw(SeenVideo(frames=frames, frame_rate=1), (50, 1, 1))
    shown = [int(label.split()[-1]) for label in panels(figure, "x: frame")]
    assert shown == [0, 7, 14, 21, 28, 35, 42, 49]
    assert "8 of 50" in notes(figure)


@pytest.mark.parametrize("num_axes", [1, 2, 3, 5])
def test_points_have_the_colours_of_their_attention(num_axes: int) -> None:
    points = RNG.normal(size=(6, num_axes))
    figure, weights_NM = draw(SeenPoints(coordinates=points), (9,), num_real={"x": 6})
    assert (panel(figure, "x: seen").name == "3d") == (num_axes >= 3)
    for axes, expected in both(figure, weights_NM):
        (cloud,) = axes.collections
        order = np.argsort(expected[:6])
        assert_allclose(cloud.get_array(), expected[:6][order], rtol=1e-5)
        assert cloud.get_clim() == pytest.approx((0, expected.max()))
        where = np.stack(cloud._offsets3d if num_axes >= 3 else cloud.get_offsets().T)
        assert_allclose(where[:num_axes].T, points[order][:, :3])
    assert ("6 points; the first three of 5 axes" in notes(figure)) == (num_axes == 5)


def test_points_have_their_own_colours_as_they_were_seen() -> None:
    colors = RNG.integers(0, 256, (6, 3), dtype=np.uint8)
    for given in (colors, colors / 255):
        figure, _ = draw(SeenPoints(coordinates=RNG.normal(size=(6, 2)), colors=given), (6,))
        assert_allclose(panel(figure, "x: seen").collections[0].get_facecolor()[:, :3], colors / 255)


def test_of_many_points_the_most_attended_are_drawn() -> None:
    points = np.stack([np.arange(100_000.0), np.zeros(100_000)], axis=1)
    figure, weights_NM = draw(SeenPoints(coordinates=points), (100_000,), num_heads=1)
    for axes, expected in both(figure, weights_NM):
        drawn = axes.collections[0].get_offsets()[:, 0].astype(int)
        assert len(drawn) == len(set(drawn)) == 4_000
        assert set(np.argsort(expected)[-1_900:]) <= set(drawn)
        # The others are everywhere.
        assert (np.histogram(drawn, bins=10)[0] > 200).all()
    spread = panel(figure, "x: seen").collections[0].get_offsets()[:, 0]
    assert len(spread) == 4_000 and np.diff(spread).max() <= 26
    assert any("4,000 are drawn" in note for note in notes(figure))


def test_table_has_a_bar_for_each_column() -> None:
    names, values = ["age", "a $name$ that goes on and on and on", "日本"], ["37", "", "x\x07"]
    figure, weights_NM = draw(SeenTable(names=names, values=values), (5,), num_real={"x": 3})
    for axes, expected in both(figure, weights_NM):
        assert_allclose([bar.get_width() for bar in axes.patches], expected[:3], rtol=1e-5)
    labels = [label.get_text() for label in panel(figure, "x: Cross-attend: mean").get_yticklabels()]
    assert labels == ["age = 37", "a $name$ that goes on a… =", "□□ = x\\x07"]


def test_of_a_wide_table_the_most_attended_columns_are_drawn() -> None:
    names = [f"c{index}" for index in range(90)]
    figure, weights_NM = draw(SeenTable(names=names, values=["1"] * 90), (90,))
    largest = np.maximum(weights_NM.mean(axis=0), weights_NM[1])
    chosen = np.sort(np.argsort(-largest)[:24])
    labels = [label.get_text() for label in panel(figure, "x: Cross-attend: mean").get_yticklabels()]
    assert labels == [f"c{index} = 1" for index in chosen]
    for axes, expected in both(figure, weights_NM):
        assert_allclose([bar.get_width() for bar in axes.patches], expected[chosen], rtol=1e-5)


def test_series_are_drawn_over_their_times() -> None:
    times = np.array([4.0, 0.0, 1.0, 8.0])
    values = np.array([[1.0, np.nan], [2.0, 5.0], [np.nan, np.nan], [3.0, np.nan]])
    seen = SeenSeries(times=times, values=values, names=["a", "b $x$"])
    figure, weights_NM = draw(seen, (6,), num_real={"x": 4})
    order = [1, 2, 0, 3]
    for index, label in enumerate(("a", "b $x$")):
        axes = panel(figure, f"x: {label}")
        assert_array_equal(axes.lines[0].get_ydata(), values[order, index])
        assert_array_equal(axes.lines[0].get_xdata(), [0, 1, 4, 8])
        assert axes.get_xlim() == (-0.5, 10)
    for axes, expected in both(figure, weights_NM):
        drawn, edges = strip(axes)
        assert_allclose(drawn, expected[order], rtol=1e-5)
        assert_allclose(edges, [-0.5, 0.5, 2.5, 6, 10])


def test_a_time_that_was_measured_alone_is_marked() -> None:
    values = np.full((100, 1), np.nan)
    values[50] = 1.0
    figure, _ = draw(SeenSeries(times=np.arange(100), values=values, names=["a"]), (100,))
    _, marks = panel(figure, "x: a").lines
    assert_array_equal(marks.get_xdata(), [50])


IMAGE = SeenImage(pixels=np.zeros((1, 1), np.uint8))
SMALLEST: dict[str, tuple[Seen, tuple[int, ...]]] = {
    "sound": (SeenSound(samples=np.zeros(1), sample_rate=1), (1,)),
    "silence": (SeenSound(samples=np.zeros((2, 5000)), sample_rate=1), (5000,)),
    "spectrogram": (SeenSpectrogram(values=np.zeros((1, 1)), seconds_per_frame=1), (1, 1)),
    "image": (IMAGE, (1, 1)),
    "tall image": (SeenImage(pixels=np.zeros((300, 2), np.uint8)), (300, 2)),
    "video": (SeenVideo(frames=np.zeros((1, 1, 1, 3), np.uint8), frame_rate=1), (1, 1, 1)),
    "tall video": (SeenVideo(frames=np.zeros((3, 90, 1, 3), np.uint8), frame_rate=1), (3, 9, 1)),
    "wide video": (SeenVideo(frames=np.zeros((3, 1, 90, 3), np.uint8), frame_rate=1), (3, 1, 9)),
    "point": (SeenPoints(coordinates=np.zeros((1, 3))), (1,)),
    "equal points": (SeenPoints(coordinates=np.ones((9, 2))), (9,)),
    "table": (SeenTable(names=["a"], values=["1"]), (1,)),
    "series": (SeenSeries(times=np.zeros(1), values=np.zeros((1, 1)), names=["a"]), (1,)),
    "one time": (SeenSeries(times=np.ones(3), values=np.zeros((3, 1)), names=["a"]), (3,)),
    "no values": (SeenSeries(times=np.arange(3), values=np.full((3, 1), np.nan), names=["a"]), (3,)),
    "many variables": (SeenSeries(times=np.arange(3), values=np.zeros((3, 20)), names=["a"] * 20), (3,)),
    "no variables": (SeenSeries(times=np.arange(3), values=np.zeros((3, 0)), names=[]), (3,)),
}


@pytest.mark.parametrize("name", SMALLEST)
def test_odd_sizes(name: str) -> None:
    seen, grid = SMALLEST[name]
    figure, _ = draw(seen, grid)
    assert panels(figure, "x: Cross-attend: latent 1")


@pytest.mark.parametrize(
    "empty",
    [
        SeenPoints(coordinates=np.zeros((0, 3))),
        SeenTable(names=[], values=[]),
        SeenSeries(times=np.zeros(0), values=np.zeros((0, 2)), names=["a", "b"]),
        SeenSound(samples=np.zeros(0), sample_rate=1),
    ],
)
def test_nothing_is_drawn_of_what_is_empty(empty: Seen) -> None:
    figure, _ = draw(empty, (3,))
    assert not panels(figure) and "There is nothing of it in this sample." in notes(figure)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SeenSound(samples=[0.0], sample_rate=1), "samples must be a numpy array .* got list"),
        (
            lambda: SeenSound(samples=np.zeros((1, 1, 1)), sample_rate=1),
            r"\(S,\) or \(F, S\), got .*\(1, 1, 1\)",
        ),
        (lambda: SeenSound(samples=np.full(3, np.nan), sample_rate=1), "samples must be finite"),
        (lambda: SeenSound(samples=np.zeros(3), sample_rate=0), "sample_rate is 0, expected"),
        (lambda: SeenSound(samples=np.zeros(3), sample_rate=1, num_real=4), "num_real is 4, expected 0 to 3"),
        (lambda: SeenSpectrogram(values=np.zeros(3), seconds_per_frame=1), r"values must be \(T, F\)"),
        (lambda: SeenSpectrogram(values=np.zeros((3, 2)), seconds_per_frame=-1), "seconds_per_frame is -1"),
        (
            lambda: SeenSpectrogram(values=np.zeros((3, 2)), seconds_per_frame=1, bands=["a"]),
            "1 names of 2 bands",
        ),
        (lambda: SeenImage(pixels=np.zeros((3, 2))), "uint8"),
        (
            lambda: SeenVideo(frames=np.zeros((1, 2, 2, 3)), frame_rate=1),
            r"uint8, got float64 \(1, 2, 2, 3\)",
        ),
        (lambda: SeenVideo(frames=np.zeros((2, 2, 3), np.uint8), frame_rate=1), r"got uint8 \(2, 2, 3\)"),
        (lambda: SeenVideo(frames=[], frame_rate=1), "got list"),
        (lambda: SeenVideo(frames=np.zeros((1, 2, 2, 3), np.uint8), frame_rate=0), "frame_rate is 0"),
        (lambda: SeenPoints(coordinates=np.zeros(3)), r"coordinates must be \(P, A\)"),
        (
            lambda: SeenPoints(coordinates=np.zeros((2, 3)), colors=np.zeros((3, 3))),
            r"colors must be \(2, 3\)",
        ),
        (
            lambda: SeenPoints(coordinates=np.zeros((1, 3)), colors=np.full((1, 3), 2.0)),
            "numbers from 0 to 1",
        ),
        (lambda: SeenTable(names=["a"], values=[]), "1 names of 0 values"),
        (
            lambda: SeenSeries(times=np.zeros(2), values=np.zeros((2, 1)), names=[]),
            r"\(2, 0\).* got \(2, 1\)",
        ),
        (
            lambda: SeenSeries(times=np.full(1, np.inf), values=np.zeros((1, 0)), names=[]),
            "times must be finite",
        ),
    ],
)
def test_refuses_what_was_not_seen(make: Callable[[], Seen], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
