"""Draws the way of the data, for light and for dark pages: docs/images/overview-light.svg and overview-dark.svg.

python benchmarks/overview.py
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

WIDTH, HEIGHT = 126, 56  # units of the drawing; a tenth of an inch each


@dataclass(frozen=True)
class Colours:
    """What a picture is drawn in."""

    ink: str
    muted: str
    line: str
    panel: str
    image: str
    sound: str
    text: str
    latent: str
    query: str


LIGHT = Colours(
    ink="#1f2430",
    muted="#5f6673",
    line="#8b93a1",
    panel="#f3f4f7",
    image="#2f7fd1",
    sound="#d9822b",
    text="#3a9d5d",
    latent="#7a4fc4",
    query="#c4437a",
)
DARK = Colours(
    ink="#e9ebf0",
    muted="#a8afbc",
    line="#7d8594",
    panel="#2b2f3a",
    image="#5ba4ee",
    sound="#f0a04f",
    text="#5fc184",
    latent="#a583ea",
    query="#ea73a4",
)


class Drawing:
    """The picture in one set of colours."""

    def __init__(self, colours: Colours) -> None:
        self.colours = colours
        self.rng = np.random.default_rng(3)
        self.figure = Figure(figsize=(WIDTH / 10, HEIGHT / 10))
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_xlim(0, WIDTH)
        self.axes.set_ylim(0, HEIGHT)
        self.axes.axis("off")

    def draw(self) -> Figure:
        """Draws all parts, from left to right."""
        c = self.colours
        self.stage(0.5, 22.5, "inputs", "any, also several")
        self.stage(30.5, 47.5, "byte array", "elements of all inputs")
        self.stage(61, 78, "latents", "few, whatever the input is")
        self.stage(100.5, 125.5, "outputs", "as many as you ask for")

        rows = {"image": (38.5, c.image), "sound": (26.5, c.sound), "text": (14.5, c.text)}
        self.image(2.6, rows["image"][0])
        self.sound(2.6, rows["sound"][0])
        self.letters(2.6, rows["text"][0])
        for name, shape in (("image", "(B, 3, H, W)"), ("sound", "(B, S)"), ("text", "(B, T)")):
            middle = rows[name][0]
            self.say(12.2, middle + 1.3, name, size=12, ha="left")
            self.say(12.2, middle - 1.5, shape, size=10, colour=c.muted, ha="left")

        # Elements: a row each, content beside position.
        left, top, cell = 33, 43.4, 1.5
        for number, colour in enumerate([c.image] * 9 + [c.sound] * 6 + [c.text] * 5):
            y = top - number * cell - (0.5 * (number > 8)) - (0.5 * (number > 14))
            for column in range(8):
                strength = self.rng.uniform(0.5, 1.0) if column < 4 else self.rng.uniform(0.15, 0.4)
                self.cell(left + column * cell, y, cell, colour, strength)
        bottom = top - 19 * cell - 1
        self.say(left + 1.8 * cell, bottom - 1.6, "content", size=9, colour=c.muted)
        self.say(left + 6.1 * cell, bottom - 1.6, "position", size=9, colour=c.muted)
        self.say(39, 8.7, "(B, M, C)", size=11.5)
        for (_, (middle, colour)), y in zip(rows.items(), (37.4, 25.7, 16.5), strict=True):
            self.arrow((23.4, middle), (32.2, y), colour)
        self.note(26.5, 44.2, "adapters", c.ink)

        # Latents: few wide rows.
        left, top, cell = 64.6, 35.6, 1.65
        for number in range(6):
            for column in range(6):
                self.cell(
                    left + column * cell,
                    top - number * cell * 1.35,
                    cell,
                    c.latent,
                    self.rng.uniform(0.35, 1),
                )
        self.say(69.5, 8.7, "(B, N, D)", size=11.5)
        self.loop(69.5, 22.2)
        self.say(69.5, 14.4, "self-attention,\nblock by block", size=9.5, colour=c.muted)
        self.arrow((46, 31), (63.6, 31), c.latent, width=2.6)
        self.note(54.3, 33.4, "cross-attends", c.ink)
        self.note(54.3, 28.2, "work grows with M,\nnot with M²", c.muted, size=9)

        # Queries: from below, through the decoder.
        self.arrow((75.6, 31), (103, 31), c.query, width=2.6, style="-")
        self.note(89.3, 33.4, "cross-attend", c.ink)
        left, cell = 83, 1.5
        for number in range(5):
            for column in range(4):
                strength = self.rng.uniform(0.35, 1)
                self.cell(left + 3.5 + column * cell, 22.6 - number * cell * 1.25, cell, c.query, strength)
        self.arrow((89.5, 25.0), (89.5, 30.3), c.query)
        self.say(89.5, 13.4, "queries", size=12)
        self.say(89.5, 10.9, "(B, O, E)", size=10.5, colour=c.muted)
        self.say(89.5, 7.8, "a class, a pixel,\na point, a token", size=9.5, colour=c.muted)

        for y in (38.5, 26.5, 14.5):
            self.arrow((103, 31), (106, y), c.query, width=1.4)
        self.bars(106.8, 38.5)
        self.map(106.8, 26.5)
        self.continued(106.8, 14.5)
        for y, name, shape in (
            (38.5, "a class", "(B, K)"),
            (26.5, "each pixel", "(B, K, H, W)"),
            (14.5, "each token", "(B, T, V)"),
        ):
            self.say(115.6, y + 1.3, name, size=11, ha="left")
            self.say(115.6, y - 1.5, shape, size=9, colour=c.muted, ha="left")

        self.say(
            63,
            1.9,
            "encode once, decode what you like: all of it, some points, in chunks",
            size=11,
            colour=c.muted,
        )
        return self.figure

    def stage(self, left: float, right: float, title: str, below: str) -> None:
        """A panel with its title."""
        self.axes.add_patch(
            FancyBboxPatch(
                (left, 6),
                right - left,
                42.5,
                boxstyle="round,pad=0,rounding_size=1.6",
                facecolor=self.colours.panel,
                edgecolor="none",
            )
        )
        self.say((left + right) / 2, 53.2, title, size=14, weight="bold")
        self.say((left + right) / 2, 50.4, below, size=9.5, colour=self.colours.muted)

    def say(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float,
        colour: str | None = None,
        ha: str = "center",
        weight: str = "normal",
    ) -> None:
        """Writes a text around a point."""
        self.axes.text(
            x, y, text, fontsize=size, color=colour or self.colours.ink, ha=ha, va="center", weight=weight
        )

    def note(self, x: float, y: float, text: str, colour: str, size: float = 11) -> None:
        """Writes what happens on an arrow."""
        self.say(x, y, text, size=size, colour=colour)

    def cell(self, x: float, y: float, side: float, colour: str, strength: float) -> None:
        """A number of an array."""
        self.axes.add_patch(Rectangle((x, y), side * 0.9, side * 0.9, facecolor=colour, alpha=strength, lw=0))

    def arrow(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        colour: str,
        width: float = 1.6,
        style: str = "-|>",
    ) -> None:
        """An arrow between two points."""
        self.axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle=style,
                mutation_scale=9 + 3 * width,
                lw=width,
                color=colour,
                shrinkA=0,
                shrinkB=0,
                connectionstyle="arc3,rad=0",
            )
        )

    def loop(self, x: float, y: float) -> None:
        """An arrow from the latents to the latents."""
        self.axes.add_patch(
            FancyArrowPatch(
                (x - 3.6, y + 1.6),
                (x + 3.6, y + 1.6),
                arrowstyle="-|>",
                mutation_scale=13,
                lw=1.6,
                color=self.colours.latent,
                connectionstyle="arc3,rad=0.9",
            )
        )

    def image(self, x: float, y: float) -> None:
        """A small picture: a hill under a sun."""
        side = 1.1
        for row in range(7):
            for column in range(7):
                hill = row < 2 + 1.6 * np.sin(column / 2.1)
                sun = (row - 5) ** 2 + (column - 5) ** 2 < 2
                strength = 0.95 if sun else 0.7 if hill else 0.25
                self.cell(x + column * side, y - 3.8 + row * side, side, self.colours.image, strength)

    def sound(self, x: float, y: float) -> None:
        """A wave."""
        time = np.linspace(0, 1, 240)
        wave = (
            np.sin(2 * np.pi * 9 * time) * np.sin(np.pi * time) * (0.6 + 0.4 * np.cos(2 * np.pi * 2 * time))
        )
        self.axes.plot(x + 7.7 * time, y + 3.2 * wave, color=self.colours.sound, lw=1.3)

    def letters(self, x: float, y: float) -> None:
        """Bytes of a text."""
        for number, letter in enumerate("Perceive"):
            row, column = divmod(number, 4)
            left, low = x + 1.9 * column, y + 0.2 - 2.2 * row
            self.axes.add_patch(
                Rectangle((left, low), 1.7, 2.0, facecolor=self.colours.text, alpha=0.25, lw=0)
            )
            self.say(left + 0.85, low + 0.95, letter, size=9, colour=self.colours.text, weight="bold")

    def bars(self, x: float, y: float) -> None:
        """Probabilities of classes."""
        for number, length in enumerate((1.4, 6.8, 2.6, 0.8)):
            strength = 1.0 if number == 1 else 0.45
            self.axes.add_patch(
                Rectangle(
                    (x, y + 2.2 - 1.7 * number),
                    length,
                    1.2,
                    facecolor=self.colours.query,
                    alpha=strength,
                    lw=0,
                )
            )

    def map(self, x: float, y: float) -> None:
        """A class for each pixel."""
        side = 1.0
        for row in range(7):
            for column in range(7):
                hill = row < 2 + 1.6 * np.sin(column / 2.1)
                sun = (row - 5) ** 2 + (column - 5) ** 2 < 2
                colour = self.colours.sound if sun else self.colours.text if hill else self.colours.image
                self.cell(x + column * side, y - 3.5 + row * side, side, colour, 0.85 if hill or sun else 0.4)

    def continued(self, x: float, y: float) -> None:
        """A text that goes on."""
        for number, letter in enumerate("Io?"):
            left = x + 2.2 * number
            strength = 0.25 if number < 2 else 0.6
            self.axes.add_patch(
                Rectangle((left, y - 1.1), 1.9, 2.3, facecolor=self.colours.query, alpha=strength, lw=0)
            )
            self.say(left + 0.95, y, letter, size=10, weight="bold")


def main() -> None:
    """Writes both pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("docs/images"), help="where to write them")
    parser.add_argument("--format", default="svg", help="svg, png")
    options = parser.parse_args()
    matplotlib.rcParams["svg.hashsalt"] = "overview"  # the same file each time
    for name, colours in (("light", LIGHT), ("dark", DARK)):
        path = options.folder / f"overview-{name}.{options.format}"
        metadata = {"Date": None} if options.format == "svg" else None
        Drawing(colours).draw().savefig(path, transparent=True, metadata=metadata)


if __name__ == "__main__":
    main()
