"""What every modality adapter is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from perceiver_io.byte_array import ByteArray
from perceiver_io.component import ComponentConfig
from perceiver_io.layers import LearnedArray

__all__ = ["InputAdapter", "check_finite"]


class InputAdapter(nn.Module, ABC):
    """Turns one raw input into a byte array.

    A subclass has a `Config` dataclass beside it, is built from one (``Adapter(config)``), declares the channels of
    its byte array, and is made known with `perceiver_io.register_adapter`.

    Attributes:
        num_channels: Channels of the byte array that `forward` returns.
        num_content_channels: How many of these, the first, are content; the others are position.
        num_elements: How many elements every input has; None where that depends on the input.
    """

    Config: ClassVar[type[ComponentConfig]]
    num_channels: int
    num_content_channels: int
    num_elements: int | None = None

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None) -> ByteArray:
        """Flattens a raw input.

        Args:
            x: (B, …) raw input, as the adapter documents it.
            mask: Bool, True where the raw input is real; its shape is documented by the adapter.

        Raises:
            ValueError: The input's rank, channels, type or size does not fit, or it holds NaN or infinities.
        """

    def tied_embedding(self) -> LearnedArray | None:
        """Returns the table of its tokens' vectors, for decoders that are tied to it; None if it has none."""
        return None


def check_finite(
    x: Tensor, *, name: str, advice: str = "Clean them, or mask the elements that are missing."
) -> None:
    """Raises a ValueError if a tensor holds NaN or infinities; skipped while `torch.compile` traces.

    A compiled graph cannot branch on values, so compiled models take what they get.

    Args:
        x: Any tensor.
        name: What the message calls it.
        advice: What to do, a sentence.

    Raises:
        ValueError: A value is NaN or infinite.
    """
    if torch.compiler.is_compiling():
        return
    if not torch.isfinite(x).all():
        raise ValueError(
            f"{name} holds {int((~torch.isfinite(x)).sum())} values that are NaN or infinite, expected finite values. "
            f"{advice}"
        )
