"""Five made sets of pictures, as folders of PNG files: `<set>/{train,test}/<class>/<number>.png`.

All are drawn from a seed, of no more than 400 training pictures, and differ in what tells their classes apart: form,
direction and scale, colour and texture of photographs, mirrored letters, the hand that wrote a digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits, load_sample_image

__all__ = ["SETS", "write_set"]

Generator = np.random.Generator
Draw = Callable[[Generator], Image.Image]

NUM_TRAIN, NUM_TEST = 320, 240
TILE = 96
_OVERSAMPLING = 4


def write_set(name: str, folder: Path, *, seed: int) -> None:
    """Draws a set.

    Args:
        name: One of `SETS`.
        folder: Where to; `train` and `test` are made in it.
        seed: Of all that is drawn.
    """
    classes = SETS[name]()
    for split, number in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        for index, (label, by_split) in enumerate(classes.items()):
            rng = np.random.default_rng([seed, index, split == "test"])
            (folder / split / label).mkdir(parents=True)
            for place in range(number // len(classes)):
                by_split[split](rng).save(folder / split / label / f"{place:03}.png")


def _shapes() -> dict[str, dict[str, Draw]]:
    """Shapes of any place, size, angle and colour, lighter or darker than their ground, with noise."""

    def star(points: int, inner: float) -> list[tuple[float, float]]:
        return [
            (math.pi * corner / points, 1.0 if corner % 2 == 0 else inner) for corner in range(2 * points)
        ]

    def polygon(corners: int) -> list[tuple[float, float]]:
        return [(2 * math.pi * corner / corners, 1.0) for corner in range(corners)]

    cross = [
        (quarter * math.pi / 2 + angle, radius)
        for quarter in range(4)
        for angle, radius in ((-0.32, 1.0), (0.32, 1.0), (math.pi / 4, 0.45))
    ]
    outlines = {
        "circle": polygon(60),
        "cross": cross,
        "square": polygon(4),
        "star": star(5, 0.4),
        "triangle": polygon(3),
    }

    def draw(outline: list[tuple[float, float]]) -> Draw:
        def one(rng: Generator) -> Image.Image:
            size = int(rng.integers(32, 65))
            radius = rng.uniform(0.22, 0.42) * size
            x, y = rng.uniform(radius, size - radius, 2)
            turn = rng.uniform(0, 2 * math.pi)
            back, fill = rng.permutation(_dark_and_light(rng)).tolist()
            canvas = Image.new("RGB", (size * _OVERSAMPLING,) * 2, tuple(back))
            corners = [
                (
                    (x + radius * part * math.cos(angle + turn)) * _OVERSAMPLING,
                    (y + radius * part * math.sin(angle + turn)) * _OVERSAMPLING,
                )
                for angle, part in outline
            ]
            ImageDraw.Draw(canvas).polygon(corners, fill=tuple(fill))
            return _noisy(canvas.resize((size, size), Image.Resampling.BOX), rng)

        return one

    return {name: _same(draw(outline)) for name, outline in outlines.items()}


def _textures() -> dict[str, dict[str, Draw]]:
    """Stripes of four directions, checks, dots, rings and filtered noise, of any scale, phase and colour."""

    def stripes(degrees: float) -> Callable[..., np.ndarray]:
        def field(x: np.ndarray, y: np.ndarray, wave: float, rng: Generator) -> np.ndarray:
            angle = math.radians(degrees + rng.uniform(-10, 10))
            along = x * math.cos(angle) + y * math.sin(angle)
            return np.sin(2 * math.pi * along / wave + rng.uniform(0, 2 * math.pi))

        return field

    def checks(x: np.ndarray, y: np.ndarray, wave: float, rng: Generator) -> np.ndarray:
        return np.sign(_wave(x, wave, rng)) * np.sign(_wave(y, wave, rng))

    def dots(x: np.ndarray, y: np.ndarray, wave: float, rng: Generator) -> np.ndarray:
        return np.where(_wave(x, wave, rng) + _wave(y, wave, rng) > 0.9, 1.0, -1.0)

    def rings(x: np.ndarray, y: np.ndarray, wave: float, rng: Generator) -> np.ndarray:
        centre_x, centre_y = rng.uniform(-10, x.max() + 10, 2)
        return np.sin(2 * math.pi * np.hypot(x - centre_x, y - centre_y) / wave)

    def clouds(x: np.ndarray, y: np.ndarray, wave: float, rng: Generator) -> np.ndarray:
        spectrum = np.fft.fft2(rng.normal(size=x.shape))
        rows, columns = np.meshgrid(*map(np.fft.fftfreq, x.shape), indexing="ij")
        values = np.fft.ifft2(spectrum / np.maximum(np.hypot(rows, columns), 1 / 64) ** 1.5).real
        return (values - values.mean()) / (2 * values.std())

    fields = {
        "checks": checks,
        "clouds": clouds,
        "dots": dots,
        "falling": stripes(135),
        "level": stripes(90),
        "rings": rings,
        "rising": stripes(45),
        "upright": stripes(0),
    }

    def draw(field: Callable[..., np.ndarray]) -> Draw:
        def one(rng: Generator) -> Image.Image:
            size = int(rng.integers(32, 65))
            y, x = np.mgrid[:size, :size].astype(float)
            values = field(x, y, rng.uniform(5, 14), rng)
            back, front = (np.array(colour, float) for colour in _two_colours(rng))
            weight = np.clip((values + 1) / 2, 0, 1)[..., None]
            return _noisy(Image.fromarray((back * (1 - weight) + front * weight).astype(np.uint8)), rng)

        return one

    return {name: _same(draw(field)) for name, field in fields.items()}


def _photographs() -> dict[str, dict[str, Draw]]:
    """Crops of ten photographs, of 48 to 64 pixels; the test's are of tiles that the training's do not touch."""
    photographs = {
        "astronaut": skimage.data.astronaut(),
        "camera": skimage.data.camera(),
        "cat": skimage.data.chelsea(),
        "cells": skimage.data.immunohistochemistry(),
        "coffee": skimage.data.coffee(),
        "flower": load_sample_image("flower.jpg"),
        "galaxies": skimage.data.hubble_deep_field(),
        "grass": skimage.data.grass(),
        "rocket": skimage.data.rocket(),
        "temple": load_sample_image("china.jpg"),
    }

    def draw(photograph: np.ndarray, is_test: bool) -> Draw:
        rows, columns = (length // TILE for length in photograph.shape[:2])
        tiles = [(i, j) for i in range(rows) for j in range(columns) if ((i + j) % 2 == 1) == is_test]

        def one(rng: Generator) -> Image.Image:
            size = int(rng.integers(48, 65))
            tile = np.array(tiles[rng.integers(len(tiles))])
            top, left = tile * TILE + rng.integers(0, TILE - size + 1, 2)
            return Image.fromarray(photograph[top : top + size, left : left + size])

        return one

    return {
        name: {"train": draw(pixels, False), "test": draw(pixels, True)}
        for name, pixels in photographs.items()
    }


def _letters() -> dict[str, dict[str, Draw]]:
    """Letters of many typefaces, slightly turned. Some are others when they are mirrored or upside down."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    fonts = sorted(folder.glob("DejaVu*.ttf")) + sorted(folder.glob("STIXGeneral*.ttf"))
    fonts = [font for font in fonts if "Display" not in font.name]

    def draw(letter: str) -> Draw:
        def one(rng: Generator) -> Image.Image:
            size = int(rng.integers(32, 65))
            front, back = _dark_and_light(rng)
            height = rng.uniform(0.5, 0.9) * size * _OVERSAMPLING
            font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), round(height))
            mask = Image.new("L", (size * _OVERSAMPLING,) * 2)
            middle = size * _OVERSAMPLING * (0.5 + rng.uniform(-0.12, 0.12, 2))
            ImageDraw.Draw(mask).text(tuple(middle), letter, fill=255, font=font, anchor="mm")
            mask = mask.rotate(rng.uniform(-15, 15), resample=Image.Resampling.BILINEAR)
            picture = Image.composite(
                Image.new("RGB", mask.size, front), Image.new("RGB", mask.size, back), mask
            )
            return _noisy(picture.resize((size, size), Image.Resampling.BOX), rng)

        return one

    return {letter: _same(draw(letter)) for letter in "bdgnpquEFZ"}


def _digits() -> dict[str, dict[str, Draw]]:
    """Handwritten digits of scikit-learn, enlarged from 8 to 32 pixels; each is taken once."""
    digits = load_digits()
    per_class = {"train": NUM_TRAIN // 10, "test": NUM_TEST // 10}

    def draw(pixels: Iterator[np.ndarray]) -> Draw:
        def one(rng: Generator) -> Image.Image:
            picture = Image.fromarray((next(pixels) * (255 / 16)).astype(np.uint8))
            return picture.resize((32, 32), Image.Resampling.BICUBIC)

        return one

    classes = {}
    for digit in range(10):
        own = digits.images[digits.target == digit]
        first = per_class["train"]
        classes[str(digit)] = {
            "train": draw(iter(own[:first])),
            "test": draw(iter(own[first : first + per_class["test"]])),
        }
    return classes


SETS: dict[str, Callable[[], dict[str, dict[str, Draw]]]] = {
    "shapes": _shapes,
    "textures": _textures,
    "photographs": _photographs,
    "letters": _letters,
    "digits": _digits,
}


def _same(draw: Draw) -> dict[str, Draw]:
    return {"train": draw, "test": draw}


def _two_colours(rng: Generator) -> list[tuple[int, ...]]:
    """Returns two colours that differ enough to be told apart."""
    while True:
        first, second = rng.integers(0, 256, (2, 3))
        if np.abs(first - second).mean() > 60:
            return [tuple(map(int, first)), tuple(map(int, second))]


def _dark_and_light(rng: Generator) -> list[tuple[int, ...]]:
    return [tuple(map(int, rng.integers(low, low + 110, 3))) for low in (0, 145)]


def _noisy(image: Image.Image, rng: Generator) -> Image.Image:
    pixels = np.asarray(image, float)
    noise = rng.normal(0, rng.uniform(0, 20), pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def _wave(x: np.ndarray, wave: float, rng: Generator) -> np.ndarray:
    return np.sin(2 * math.pi * x / (1.4 * wave) + rng.uniform(0, 2 * math.pi))
