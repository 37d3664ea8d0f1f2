"""The colours of the Middlebury benchmark for optical flow.

Direction is hue, length is saturation: white does not move, red moves right, yellow down, cyan left, blue up. From
Baker, Scharstein, Lewis, Roth, Black and Szeliski, "A Database and Evaluation Methodology for Optical Flow", IJCV 2011.

Shape legend: H height, W width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.tasks.optical_flow.checks import check_flow, check_valid

__all__ = ["colour_wheel", "flow_to_colours"]

# Each arc goes from one corner of the colour cube to the next: how many hues it has, the channel that changes, whether
# that rises, and the colour at its beginning.
_ARCS = (
    (15, 1, True, (255, 0, 0)),  # red to yellow
    (6, 0, False, (255, 255, 0)),  # yellow to green
    (4, 2, True, (0, 255, 0)),  # green to cyan
    (11, 1, False, (0, 255, 255)),  # cyan to blue
    (13, 0, True, (0, 0, 255)),  # blue to magenta
    (6, 2, False, (255, 0, 255)),  # magenta to red
)
_TOO_LONG = 0.75  # what colours of flow beyond the largest magnitude are darkened by


def colour_wheel() -> NDArray[np.uint8]:
    """Returns the 55 hues around the circle, (55, 3): unevenly many of each, as eyes tell them apart."""
    hues = []
    for num_hues, channel, rises, start in _ARCS:
        step = 255 * np.arange(num_hues) // num_hues
        arc = np.tile(np.array(start, dtype=np.uint8), (num_hues, 1))
        arc[:, channel] = step if rises else 255 - step
        hues.append(arc)
    return np.concatenate(hues)


def flow_to_colours(
    flow: Tensor, valid: Tensor | None = None, *, max_magnitude: float | None = None
) -> NDArray[np.uint8]:
    """Colours a flow field.

    Args:
        flow: (2, H, W) in pixels, x (right) and y (down).
        valid: (H, W) bool, True where the flow is known; the rest is black. What is not finite is unknown, too.
        max_magnitude: The length in pixels that has the full colour; what is longer is darker. The longest known one if
            None.

    Returns:
        (H, W, 3) RGB values.

    Raises:
        ValueError: A shape or type does not fit, or `max_magnitude` is not positive.
    """
    check_flow(flow)
    check_valid(valid, flow)
    if max_magnitude is not None and not max_magnitude > 0:
        raise ValueError(f"max_magnitude must be positive, got {max_magnitude}.")
    flow_2HW = flow.detach().cpu().double().numpy()
    known_HW = np.isfinite(flow_2HW).all(axis=0)
    if valid is not None:
        known_HW &= valid.cpu().numpy()
    # Adding zero makes -0.0 positive: the two are opposite ends of the circle.
    x_HW, y_HW = np.where(known_HW, flow_2HW, 0.0) + 0.0
    length_HW = np.hypot(x_HW, y_HW)
    # A field at rest is white, whatever its scale.
    length_HW = length_HW / (max_magnitude or length_HW.max(initial=0.0) or 1.0)

    wheel = colour_wheel() / 255
    position_HW = (np.arctan2(-y_HW, -x_HW) / np.pi + 1) / 2 * (len(wheel) - 1)
    below_HW = np.floor(position_HW).astype(int)
    share_HW1 = (position_HW - below_HW)[..., None]
    hue_HW3 = (1 - share_HW1) * wheel[below_HW] + share_HW1 * wheel[(below_HW + 1) % len(wheel)]
    length_HW1 = length_HW[..., None]
    colours_HW3 = np.where(length_HW1 <= 1, 1 - length_HW1 * (1 - hue_HW3), _TOO_LONG * hue_HW3)
    # The tolerance is for values that rounding leaves a hair below the next whole number.
    colours_HW3 = np.floor(255 * colours_HW3 + 1e-9) * known_HW[..., None]
    return colours_HW3.astype(np.uint8)
