"""Image files."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require
from perceiver_io.files import writing
from perceiver_io.media.source import (
    Source,
    UnreadableError,
    check_decoded,
    fault_of,
    open_source,
    unreadable,
)

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["image_fault", "image_suffixes", "open_image", "write_image"]

# Formats that Pillow only knows by their beginnings, or hands on: PostScript to Ghostscript, and what lies in IPTC to
# whatever it is.
_OTHERS = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
_BYTES_A_PIXEL = 4  # of the widest modes


def open_image(source: Source) -> Image:
    """Opens an image file, all of it.

    Args:
        source: The file: a path, bytes, or a mapping of `path` and `bytes`.

    Raises:
        UnreadableError: There is no such file, or it is no image, damaged, or larger than Pillow's limit on pixels or
            the budget of decoded bytes allow.
        ImportError: Pillow is not installed.
    """
    return _opened(source)


def write_image(path: str | os.PathLike[str], image: Image | NDArray[np.uint8]) -> None:
    """Writes a picture as a PNG, whole or not at all.

    Args:
        path: The file.
        image: A Pillow image, or (H, W, 3) RGB values.

    Raises:
        ValueError: The folder does not exist.
        OSError: The file cannot be written.
        ImportError: Pillow is not installed.
    """
    picture: Image = (
        require("PIL.Image", extra="image").fromarray(image) if isinstance(image, np.ndarray) else image
    )
    with writing(Path(path)) as partial:
        picture.save(partial, format="PNG")


def image_suffixes() -> set[str]:
    """Returns the endings of image files that can be read, in lower case."""
    pil = require("PIL.Image", extra="image")
    formats = {*_formats()}  # some are only ever written, such as PDF
    return {extension for extension, form in pil.registered_extensions().items() if form in formats}


def image_fault(source: Source | None) -> str | None:
    """Returns what is wrong with an image file, None if it decodes.

    Args:
        source: As `open_image`; None where there is none.
    """
    # At an eighth of the size, where the format can do that (JPEG): reads all data, skips most work.
    return fault_of(functools.partial(_opened, smallest=True), source)


def _formats() -> list[str]:
    pil = require("PIL.Image", extra="image")
    pil.init()
    return [form for form in pil.ID if form not in _OTHERS]


def _opened(source: Source, *, smallest: bool = False) -> Image:
    pil = require("PIL.Image", extra="image")
    formats = _formats()
    with open_source(source) as file:
        try:
            with pil.open(file, formats=formats) as image:
                check_decoded(source, image.width * image.height * _BYTES_A_PIXEL)
                if smallest:
                    image.draft(None, (1, 1))
                image.load()
                opened: Image = image
                return opened
        except UnreadableError:
            raise
        except pil.UnidentifiedImageError as error:
            raise unreadable(source, "not an image") from error
        except (pil.DecompressionBombError, pil.DecompressionBombWarning) as error:
            raise unreadable(
                source, f"too large ({error}); raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
            ) from error
        except Exception as error:  # decoders raise what they like
            raise unreadable(source, f"damaged ({error or type(error).__name__})") from error
