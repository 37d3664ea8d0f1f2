"""What every modality adapter is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from perceiver_io.byte_array import ByteArray
from perceiver_io.component import ComponentConfig
from perceiver_io.layers import LearnedArray

__all__ = ["InputAdapter"]


class InputAdapter(nn.Module, ABC):
    """Turns one raw input into a byte array.

    A subclass has a `Config` dataclass beside it, is built from one (``Adapter(config)``), declares the channels of
    its byte array, and is made known with `perceiver_io.register_adapter`.

    Attributes:
        num_channels: Channels of the byte array that `forward` returns.
        num_content_channels: How many of these, the first, are content; the others are position.
        num_elements: How many elements every input has; None where that depends on the input.
        depends_on_extent: Whether positions follow the size of each input, as published: then a padded input is
            another one, mask or not.
        takes_nan: Whether NaN is a value like others, that says: not measured. Else it is refused.
    """

    Config: ClassVar[type[ComponentConfig]]
    num_channels: int
    num_content_channels: int
    num_elements: int | None = None
    depends_on_extent: bool = False
    takes_nan: ClassVar[bool] = False

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None) -> ByteArray:
        """Flattens a raw input.

        Args:
            x: (B, …) raw input, as the adapter documents it.
            mask: Bool, True where the raw input is real; its shape is documented by the adapter.

        Raises:
            ValueError: The input's rank, channels, type or size does not fit, or it holds infinities, or NaN that
                it does not take.
        """

    def tied_embedding(self) -> LearnedArray | None:
        """Returns the table of its tokens' vectors, for decoders that are tied to it; None if it has none."""
        return None
