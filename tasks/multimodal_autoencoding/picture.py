"""A picture of a reconstruction: frames of the input above those of the reconstruction, and both waveforms.

Drawn with Pillow, which comes with reading videos anyway.

Shape legend: T frames, H height, W width, S samples.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require
from perceiver_io.files import writing

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["draw_reconstruction", "reconstruction_picture"]

Frames: TypeAlias = NDArray[np.uint8]
Sound: TypeAlias = NDArray[np.floating[Any]]

_INK, _MUTED, _RULE, _WHITE = "#1f2430", "#6b7280", "#d5d9e0", "#ffffff"
_INPUT, _OUTPUT = "#3b5b8c", "#c2410c"
_MARGIN, _GAP, _CAPTION = 16, 6, 20
_FRAME_HEIGHT, _WAVE_HEIGHT = 150, 72
_NUM_COLUMNS = 8


def draw_reconstruction(
    path: str | os.PathLike[str],
    frames: Frames,
    reconstruction: Frames,
    *,
    audio: Sound | None = None,
    audio_reconstruction: Sound | None = None,
    captions: Sequence[str] = (),
) -> None:
    """Writes the picture that `reconstruction_picture` makes as a PNG; its other arguments and errors are the same.

    Args:
        path: File to write, whole or not at all.
        frames: As `reconstruction_picture`.
        reconstruction: The same.
        audio: The same.
        audio_reconstruction: The same.
        captions: The same.

    Raises:
        OSError: The file cannot be written.
    """
    picture = reconstruction_picture(
        frames, reconstruction, audio=audio, audio_reconstruction=audio_reconstruction, captions=captions
    )
    path = Path(path)
    with writing(path) as partial:
        picture.save(partial, format="PNG")


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
    chosen = np.linspace(0, len(frames) - 1, min(_NUM_COLUMNS, len(frames))).round().astype(int)
    height, width = frames.shape[1:3]
    cell = (max(round(_FRAME_HEIGHT * width / height), 24), _FRAME_HEIGHT)
    inner = max(len(chosen) * (cell[0] + _GAP) - _GAP, 480)
    waves = [
        (name, sound, color)
        for name, sound, color in (
            ("sound, input", audio, _INPUT),
            ("sound, reconstruction", audio_reconstruction, _OUTPUT),
        )
        if sound is not None and len(sound)
    ]
    total = 2 * _MARGIN + _CAPTION * len(captions) + 2 * (_CAPTION + cell[1] + _GAP)
    total += len(waves) * (_CAPTION + _WAVE_HEIGHT + _GAP)

    picture = require("PIL.Image", extra="video").new("RGB", (inner + 2 * _MARGIN, total), _WHITE)
    pen = require("PIL.ImageDraw", extra="video").Draw(picture)
    font = require("PIL.ImageFont", extra="video").load_default(size=13)
    y = _MARGIN
    for caption in captions:
        pen.text((_MARGIN, y), caption, fill=_INK, font=font)
        y += _CAPTION
    for name, row in (("input", frames), ("reconstruction", reconstruction)):
        pen.text((_MARGIN, y), name, fill=_MUTED, font=font)
        y += _CAPTION
        for column, index in enumerate(chosen):
            picture.paste(_scaled(row[index], cell), (_MARGIN + column * (cell[0] + _GAP), y))
        y += cell[1] + _GAP
    # One scale for both, so that a reconstruction that is too quiet looks it.
    loudest = max((float(np.abs(sound).max()) for _, sound, _ in waves), default=0.0) or 1.0
    for name, sound, color in waves:
        pen.text((_MARGIN, y), name, fill=_MUTED, font=font)
        y += _CAPTION
        _draw_wave(pen, sound / loudest, color, left=_MARGIN, top=y, width=inner)
        y += _WAVE_HEIGHT + _GAP
    return picture


def _scaled(frame_hwc: Frames, cell: tuple[int, int]) -> Image:
    pil = require("PIL.Image", extra="video")
    # Enlarged pixels stay squares: a blur would hide what the model gave.
    enlarged = frame_hwc.shape[0] < cell[1]
    resample = pil.Resampling.NEAREST if enlarged else pil.Resampling.LANCZOS
    image: Image = pil.fromarray(np.ascontiguousarray(frame_hwc)).resize(cell, resample=resample)
    return image


def _draw_wave(pen: Any, sound: Sound, color: str, *, left: int, top: int, width: int) -> None:
    """Draws a vertical line from the least to the largest sample of each column."""
    middle, half = top + _WAVE_HEIGHT / 2, _WAVE_HEIGHT / 2 - 1
    pen.line((left, middle, left + width, middle), fill=_RULE)
    edges = np.linspace(0, len(sound), width + 1).astype(int)
    for column in range(width):
        part = sound[edges[column] : max(edges[column + 1], edges[column] + 1)]
        if len(part):
            pen.line(
                (left + column, middle - half * part.max(), left + column, middle - half * part.min()),
                fill=color,
            )
