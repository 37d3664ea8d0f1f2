"""Image files."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require
from perceiver_io.files import writing

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["image_fault", "image_suffixes", "open_image", "write_image"]


def open_image(path: str | os.PathLike[str]) -> Image:
    """Opens an image file, all of it.

    Args:
        path: The file.

    Raises:
        ValueError: There is no such file, or it is no image, or damaged.
        ImportError: Pillow is not installed.
    """
    pil = require("PIL.Image", extra="image")
    try:
        with pil.open(path) as image:
            image.load()
            opened: Image = image
            return opened
    except FileNotFoundError as error:
        raise ValueError(f"There is no file {path}.") from error
    except (OSError, ValueError, SyntaxError, pil.DecompressionBombError) as error:
        raise ValueError(f"{path} is not an image, or damaged: {error}.") from error


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
    # Some formats are only ever written, such as PDF.
    return {extension for extension, form in pil.registered_extensions().items() if form in pil.OPEN}


def image_fault(image: Mapping[str, Any] | None) -> str | None:
    """Returns what is wrong with an encoded image, None if it decodes.

    Args:
        image: Its `path`, or its `bytes`; None where there is none.
    """
    pil = require("PIL.Image", extra="image")
    if image is None:
        return "missing"
    source = image["path"] if image["bytes"] is None else io.BytesIO(image["bytes"])
    try:
        with pil.open(source) as picture:
            # At an eighth of the size, where the format can do that (JPEG): reads all data, skips most work.
            picture.draft(None, (1, 1))
            picture.load()
    except FileNotFoundError:
        return "missing"
    except pil.UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # decoders raise what they like
        return str(error) or type(error).__name__
    return None
