"""What every modality adapter is.

Shape legend: B batch, M elements, V values of a target.
"""

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
        argument_names: What models of `transformers` call this input and its mask, such as "pixel_values" and
            "pixel_mask"; None if they have no name for it.
        num_target_channels: V, how many numbers `targets` gives for an element; None where an adapter has no targets.
    """

    Config: ClassVar[type[ComponentConfig]]
    num_channels: int
    num_content_channels: int
    num_elements: int | None = None
    depends_on_extent: bool = False
    takes_nan: ClassVar[bool] = False
    argument_names: ClassVar[tuple[str, str] | None] = None
    num_target_channels: int | None = None

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

    def targets(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the raw values that each element stands for: what masked pre-training hides and asks for.

        No parameter is used. An adapter that has targets sets `num_target_channels`, too.

        Args:
            x: As `forward`.
            mask: As `forward`.

        Returns:
            (B, M, V); NaN for what is masked, was not measured, or does not belong to the element.

        Raises:
            ValueError: The adapter has none; or as `forward`.
        """
        raise ValueError(
            f"The elements of a {type(self).__name__} stand for no raw values that could be reconstructed: it has no "
            "targets."
        )

    def from_targets(self, targets_BMV: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Returns the raw input that has these targets.

        Args:
            targets_BMV: (B, M, V).
            grid: That of the byte array.

        Raises:
            ValueError: The adapter cannot tell.
        """
        raise ValueError(f"A {type(self).__name__} cannot put a raw input together of targets.")

    def mask_without(self, hidden_BM: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor | None:
        """Returns the mask by which elements that are left know nothing of what hidden ones cover.

        By default that is the mask as it is: no element depends on what others cover. An adapter with convolutions over
        several elements has to hide their raw values, before the convolutions.

        Args:
            hidden_BM: (B, M) bool, True where an element is hidden.
            x: As `forward`.
            mask: As `forward`.
        """
        return mask
