"""A picture of a reconstruction: frames of the input above those of the reconstruction, and both waveforms.

Shape legend: T frames, H height, W width, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require
from perceiver_io.media.images import write_image
from perceiver_io.pictures.figure import RULE
from perceiver_io.pictures.sheet import WHITE, Sheet, scaled

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["draw_reconstructions", "reconstruction_picture", "side_by_side"]

Frames: TypeAlias = NDArray[np.uint8]
Sound: TypeAlias = NDArray[np.floating[Any]]

_INPUT, _OUTPUT = "#3b5b8c", "#c2410c"
_FRAME_HEIGHT, _SMALL_FRAME_HEIGHT, _WAVE_HEIGHT, _MIN_WIDTH = 150, 72, 72, 480
_BESIDE_HEIGHT = 180
_NUM_COLUMNS = 8


def reconstruction_picture(
    frames: Frames,
    reconstruction: Frames,
    *,
    audio: Sound | None = None,
    audio_reconstruction: Sound | None = None,
    captions: Sequence[str] = (),
) -> Image:
    """Makes a picture of up to eight frames, evenly spread, above their reconstruction, and of the sounds.

    Args:
        frames: (T, H, W, 3) uint8, what was put in.
        reconstruction: (T, h, w, 3) uint8, what came out; its size may be another.
        audio: (S,) samples in [-1, 1] that were put in; None where there was no sound.
        audio_reconstruction: (s,) samples that came out; None if the model gives none.
        captions: Lines of text above all.

    Raises:
        ValueError: There are no frames, or not as many in as out.
        ImportError: Pillow is not installed.
    """
    if not len(frames) or len(frames) != len(reconstruction):
        raise ValueError(
            f"A picture needs as many frames in as out, and at least one, got {len(frames)} and {len(reconstruction)}."
        )
    sheet = Sheet(min_width=_MIN_WIDTH)
    for caption in captions:
        sheet.line(caption)
    _add(sheet, frames, reconstruction, audio, audio_reconstruction)
    return sheet.picture()


def draw_reconstructions(
    pairs: Sequence[tuple[Frames, Frames, Sound | None, Sound | None]], captions: Sequence[str], path: Path
) -> None:
    """Draws several clips, each above its reconstruction.

    Args:
        pairs: Frames in and out, and sounds in and out, as `reconstruction_picture` takes them.
        captions: A line for each.
        path: The PNG to write.
    """
    sheet = Sheet(min_width=_MIN_WIDTH)
    for caption, pair in zip(captions, pairs, strict=True):
        sheet.line(caption)
        _add(sheet, *pair, frame_height=_SMALL_FRAME_HEIGHT)
    write_image(path, sheet.picture())


def side_by_side(frames: Frames, reconstruction: Frames) -> Frames:
    """Puts each frame beside its reconstruction, both enlarged by a whole number where they are small.

    Args:
        frames: (T, H, W, 3) uint8, what was put in.
        reconstruction: The same of what came out.
    """
    factor = max(1, _BESIDE_HEIGHT // frames.shape[1])
    gap = np.full((len(frames), frames.shape[1], 1, 3), 255, np.uint8)
    pair = np.concatenate([frames, gap, reconstruction], axis=2)
    return pair.repeat(factor, axis=1).repeat(factor, axis=2)


def _add(
    sheet: Sheet,
    frames: Frames,
    reconstruction: Frames,
    audio: Sound | None,
    audio_reconstruction: Sound | None,
    *,
    frame_height: int = _FRAME_HEIGHT,
) -> None:
    """Adds frames above their reconstruction, and the sounds below."""
    chosen = np.linspace(0, len(frames) - 1, min(_NUM_COLUMNS, len(frames))).round().astype(int)
    height, width = frames.shape[1:3]
    cell = (max(round(frame_height * width / height), 24), frame_height)
    for name, row in (("input", frames), ("reconstruction", reconstruction)):
        sheet.line(name, muted=True)
        sheet.row([scaled(row[index], cell) for index in chosen])
    waves = [
        (name, sound, color)
        for name, sound, color in (
            ("sound, input", audio, _INPUT),
            ("sound, reconstruction", audio_reconstruction, _OUTPUT),
        )
        if sound is not None and len(sound)
    ]
    # One scale for both, so that a reconstruction that is too quiet looks it.
    loudest = max((float(np.abs(sound).max()) for _, sound, _ in waves), default=0.0) or 1.0
    for name, sound, color in waves:
        sheet.line(name, muted=True)
        sheet.row([_wave(sound / loudest, color, width=sheet.width)])


def _wave(sound: Sound, color: str, *, width: int) -> Image:
    """Draws a vertical line from the least to the largest sample of each column."""
    wave: Image = require("PIL.Image", extra="video").new("RGB", (width, _WAVE_HEIGHT), WHITE)
    pen = require("PIL.ImageDraw", extra="video").Draw(wave)
    middle, half = _WAVE_HEIGHT / 2, _WAVE_HEIGHT / 2 - 1
    pen.line((0, middle, width, middle), fill=RULE)
    edges = np.linspace(0, len(sound), width + 1).astype(int)
    for column in range(width):
        part = sound[edges[column] : max(edges[column + 1], edges[column] + 1)]
        if len(part):
            pen.line((column, middle - half * part.max(), column, middle - half * part.min()), fill=color)
    return wave
