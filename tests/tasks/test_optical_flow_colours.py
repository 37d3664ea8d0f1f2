"""The Middlebury colours, against values worked out by hand, and the picture made of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from perceiver_io.media.images import write_image
from perceiver_io.tasks.optical_flow.colour_wheel import colour_wheel, flow_to_colours
from perceiver_io.tasks.optical_flow.picture import flow_picture


def field(*vectors: tuple[float, float]) -> Tensor:
    """A flow of one row."""
    return torch.tensor(vectors, dtype=torch.float64).T[:, None]


def colours(*vectors: tuple[float, float], max_magnitude: float | None = 1.0) -> list[tuple[int, ...]]:
    return [
        tuple(map(int, pixel)) for pixel in flow_to_colours(field(*vectors), max_magnitude=max_magnitude)[0]
    ]


def test_wheel_of_55_hues() -> None:
    wheel = colour_wheel()
    assert wheel.shape == (55, 3) and len({tuple(hue) for hue in wheel}) == 55
    corners = {
        0: (255, 0, 0),
        15: (255, 255, 0),
        21: (0, 255, 0),
        25: (0, 255, 255),
        36: (0, 0, 255),
        49: (255, 0, 255),
    }
    for index, hue in corners.items():
        assert tuple(wheel[index]) == hue
    # Within an arc the steps are equal: 255 i / n, rounded down, up or down from the corner.
    assert tuple(wheel[7]) == (255, 119, 0)  # 255 * 7 / 15 = 119
    assert tuple(wheel[18]) == (128, 255, 0)  # 255 - 127
    assert tuple(wheel[24]) == (0, 255, 191)
    assert tuple(wheel[26]) == (0, 232, 255)  # 255 - 23
    assert tuple(wheel[48]) == (235, 0, 255)
    assert tuple(wheel[54]) == (255, 0, 43)


def test_the_four_directions() -> None:
    # The hue is number 54 (angle + pi) / 2 pi, the angle that of the opposite direction.
    right, down, left, up = colours((1, 0), (0, 1), (-1, 0), (0, -1))
    assert right == (255, 0, 0)  # number 0
    assert down == (255, 229, 0)  # 13.5: between 221 and 238
    assert left == (0, 209, 255)  # 27: 255 - 46
    assert up == (88, 0, 255)  # 40.5: between 78 and 98


def test_signed_zeros_are_one_direction() -> None:
    assert colours((1.0, -0.0)) == colours((1.0, 0.0)) == [(255, 0, 0)]
    assert colours((-0.0, 1.0)) == colours((0.0, 1.0))


def test_length_is_saturation() -> None:
    rest, half, full, beyond = colours((0, 0), (5, 0), (10, 0), (10.1, 0), max_magnitude=10)
    assert rest == (255, 255, 255)
    assert half == (255, 127, 127)  # half way to white
    assert full == (255, 0, 0)
    assert beyond == (191, 0, 0)  # three quarters as bright


def test_every_colour_as_the_loop_of_the_paper() -> None:
    """One pixel after the other, in plain Python."""
    vectors = [(x / 4, y / 4) for x in range(-5, 6) for y in range(-5, 6)]
    wheel = colour_wheel().tolist()
    for (x, y), found in zip(vectors, colours(*vectors), strict=True):
        position = (math.atan2(-y, -x) / math.pi + 1) / 2 * 54
        below = int(position)
        for channel in range(3):
            a, b = wheel[below][channel] / 255, wheel[(below + 1) % 55][channel] / 255
            hue = a + (b - a) * (position - below)
            length = math.hypot(x, y)
            value = 255 * (1 - length * (1 - hue) if length <= 1 else hue * 0.75)
            assert abs(found[channel] - value) < 1 + 1e-6 and found[channel] <= value + 1e-6


def test_scale_follows_the_longest_known_flow() -> None:
    flow = field((3, 4), (30, 40), (torch.inf, 0), (torch.nan, 1))
    valid = torch.tensor([[True, False, True, True]])
    pixels = flow_to_colours(flow, valid)[0].tolist()
    assert pixels[1:] == [[0, 0, 0]] * 3
    assert tuple(pixels[0]) == colours((0.6, 0.8))[0]
    assert colours((0, 0), max_magnitude=None) == [(255, 255, 255)]
    assert not flow_to_colours(flow, ~torch.ones(1, 4, dtype=torch.bool)).any()


@pytest.mark.parametrize(
    ("flow", "settings", "message"),
    [
        (torch.zeros(3, 2, 2), {}, r"must be \(2, height, width\)"),
        (torch.zeros(2, 2, 2), {"valid": torch.ones(2, 2)}, "valid must be bool"),
        (torch.zeros(2, 2, 2), {"max_magnitude": 0.0}, "must be positive, got 0"),
        (torch.zeros(2, 2, 2), {"max_magnitude": math.nan}, "must be positive, got nan"),
    ],
)
def test_bad_input(flow: Tensor, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flow_to_colours(flow, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(40, 60), (500, 1000), (1, 1), (160, 100)])
def test_picture_shows_frames_and_flow(height: int, width: int, tmp_path: Path) -> None:
    first = np.full((height, width, 3), (10, 200, 30), dtype=np.uint8)
    second = np.full((height, width, 3), (200, 10, 30), dtype=np.uint8)
    flow = torch.zeros(2, height, width)
    flow[0] = 2.5
    write_image(tmp_path / "a.png", flow_picture(first, second, flow))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG" and picture.width < 1700
        counts = {colour: count for count, colour in picture.getcolors(1 << 22) or []}
    # Three panels of one colour each, equally large; the flow to the right is red.
    panels = [counts[colour] for colour in ((10, 200, 30), (200, 10, 30), (255, 0, 0))]
    assert panels[0] == panels[1] >= 100 * 100 * min(height, width) / max(height, width)
    assert panels[0] <= panels[2] < panels[0] + 100  # the key has some red too
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_picture_of_other_sizes_is_refused() -> None:
    frame = np.zeros((4, 5, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"must be \(5, 4, 3\), got \(4, 5, 3\)"):
        flow_picture(frame, frame, torch.zeros(2, 5, 4))


def test_picture_of_flow_that_is_known_nowhere() -> None:
    frame = np.zeros((4, 5, 3), dtype=np.uint8)
    picture = flow_picture(frame, frame, torch.ones(2, 4, 5), torch.zeros(4, 5, dtype=torch.bool))
    assert picture.getpixel((picture.width - 60, picture.height // 2)) is not None
