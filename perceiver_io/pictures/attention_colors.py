"""The colours of attention: over grey pictures, and on white.

Shape legend: G grid height, g grid width, H image height, W image width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.extras import require

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

__all__ = ["backdrop", "colormap_on_white", "highest_drawn", "overlay_colormap", "percent"]


def backdrop(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns an image in dark greys, so that colours stand out on it wherever it is white.

    Args:
        pixels: (H, W) or (H, W, 3) uint8.
    """
    grey = pixels if pixels.ndim == 2 else pixels @ np.array([0.299, 0.587, 0.114])
    return np.round(30 + 110 * (grey / 255)).astype(np.uint8)


def overlay_colormap() -> Colormap:
    """Returns inferno's upper part, fading out towards zero: the picture shows where no weight is."""
    colors = require("matplotlib.colors", extra="train")
    inferno = require("matplotlib", extra="train").colormaps["inferno"]
    rgba = inferno(np.linspace(0.3, 1, 256))
    rgba[:, 3] = np.linspace(0, 1, 256) ** 0.6
    colormap: Colormap = colors.ListedColormap(rgba, name="attention")
    return colormap


def colormap_on_white(*, lowest: str = "#f0f1f4") -> Colormap:
    """Returns light grey to red, light enough for black letters.

    Args:
        lowest: The colour of no attention.
    """
    colors = require("matplotlib.colors", extra="train")
    stops = [lowest, "#fee3b8", "#fdb366", "#f4704a", "#dd3b3b"]
    colormap: Colormap = colors.LinearSegmentedColormap.from_list("attention on white", stops)
    return colormap


def highest_drawn(weights_Gg: NDArray[np.float32]) -> float:
    """Returns the highest weight on the colour scale of a panel.

    On large grids it leaves out the largest half percent of weights, or one bright element would black out the
    rest; but never shows as bright what is less than even attention.

    Args:
        weights_Gg: The weights of the panel.
    """
    high = float(np.quantile(weights_Gg, 0.995, method="higher"))
    return min(max(high, 1 / weights_Gg.size), float(weights_Gg.max()))


def percent(share: Any) -> str:
    """Returns a share of the attention as text, with two digits.

    Args:
        share: 0 to 1.
    """
    if 0 < share < 1e-6:
        return "< 0.0001 %"
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"
