"""What a model saw of an input: each kind draws itself, and the attention to it, on a sheet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

import numpy as np

from perceiver_io.pictures.input_attention import InputAttention
from perceiver_io.pictures.panel_sheet import PanelSheet

__all__ = ["Seen", "check_array", "check_grid", "check_real", "check_rows"]


class Seen(ABC):
    """What a model saw of one input of one sample, to be drawn with the attention to it.

    A kind is a frozen dataclass, which checks its values when it is made.
    """

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is real, so that there is nothing to draw."""
        return False

    @abstractmethod
    def draw(self, sheet: PanelSheet, attention: InputAttention) -> None:
        """Draws what was seen, and then how the mean of the latents and some of them weigh it.

        Args:
            sheet: Where to draw.
            attention: What to draw; nothing may be drawn of elements that are only padding.

        Raises:
            ValueError: The attention is not to what was seen: its grid is another.
        """


def check_array(values: object, *, what: str, shapes: str, num_axes: Collection[int]) -> None:
    """Checks the numbers that were seen.

    Args:
        values: The numbers.
        what: What they are called.
        shapes: Which shapes they may have, in words.
        num_axes: How many axes they may have.

    Raises:
        ValueError: They are no array of finite numbers, of no such shape, or there are none along the later axes.
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        kind = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise ValueError(
            f"{what} must be a numpy array {shapes} of numbers, got {kind}: convert it with numpy.asarray."
        )
    if values.ndim not in num_axes or 0 in values.shape[1:]:
        raise ValueError(f"{what} must be {shapes}, got the shape {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{what} must be finite, got NaN or infinity.")


def check_real(num_real: int | None, length: int, what: str) -> None:
    """Checks how much of an input is real.

    Args:
        num_real: How many are real, the first; None for all.
        length: How many there are.
        what: What there is, in the plural.

    Raises:
        ValueError: It is out of range.
    """
    if num_real is not None and not 0 <= num_real <= length:
        raise ValueError(f"num_real is {num_real}, expected 0 to {length}: there are {length} {what}.")


def check_grid(attention: InputAttention, axes: str, *, limits: tuple[int, ...]) -> None:
    """Checks that attention is to as many axes as were seen, with no more elements on any than were seen.

    Args:
        attention: The attention to an input.
        axes: What its axes are called.
        limits: How much was seen along each axis.

    Raises:
        ValueError: It is not.
    """
    grid = attention.grid
    if len(grid) != len(limits) or any(size > limit for size, limit in zip(grid, limits, strict=True)):
        raise ValueError(
            f"The attention to {attention.name!r} has the grid {grid}, but what was seen has {limits} ({axes}). Give "
            "what the model saw, padding included."
        )


def check_rows(attention: InputAttention, num_rows: int, what: str) -> None:
    """Checks that attention is to a row of elements, of which the first are what was seen and the others padding.

    Args:
        attention: The attention to an input.
        num_rows: How much was seen.
        what: What was seen, in the plural.

    Raises:
        ValueError: It is not.
    """
    grid = attention.grid
    if len(grid) != 1 or grid[0] < num_rows:
        raise ValueError(
            f"The attention to {attention.name!r} has the grid {grid}, but {num_rows} {what} were seen, each of which "
            "is an element."
        )
