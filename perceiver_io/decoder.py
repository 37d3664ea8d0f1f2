"""What every decoder is, what it may ask for, and what it is asked.

A decoder's settings declare what it needs of other parts (`DecoderNeeds`); the model hands it just that when it builds
it (`DecoderParts`); each call says what is to be decoded (`DecoderRequest`). Nothing else passes between them.

Shape legend: B batch, M elements, N latents, D latent channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from perceiver_io.byte_array import ByteArray
from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import check_finite
from perceiver_io.layers import LearnedArray
from perceiver_io.points import Points
from perceiver_io.query_attention import QueryAttention

__all__ = [
    "WHOLE_OUTPUT",
    "Decoder",
    "DecoderConfig",
    "DecoderNeeds",
    "DecoderParts",
    "DecoderRequest",
    "Encoded",
]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What the encoder made of a batch: all that a decoder needs, and as often as needed.

    Attributes:
        latents: (B, N, D).
        byte_arrays: The byte array of each input that was there, for decoders whose queries are made of inputs.
        hidden: By the name of each input with a mask token, (B, M) bool: True where the token stood for the element
            when this batch was encoded, because it was drawn, is always hidden, was masked, or was not there.

    Raises:
        ValueError: The latents are not floating-point (B, N, D) with at least one sample, or hold NaN or infinities.
    """

    latents: Tensor
    byte_arrays: Mapping[str, ByteArray] = field(default_factory=dict)
    hidden: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.latents.ndim != 3 or 0 in self.latents.shape or not self.latents.is_floating_point():
            raise ValueError(
                f"Latents must be floating point (B, N, D) with at least one sample, got {self.latents.dtype} "
                f"{tuple(self.latents.shape)}."
            )
        # Inputs are checked before: if the latents are not finite, the weights are to blame.
        check_finite(
            self.latents,
            name="The latent array",
            advice="The weights are damaged, or training has diverged: lower the learning rate, or warm up longer.",
        )


@dataclass(frozen=True, kw_only=True)
class DecoderNeeds:
    """What a decoder needs of the model's other parts. By default, nothing but the latents.

    Attributes:
        embedding: Input whose table of tokens the output is tied to.
        elements: Inputs whose elements queries are made of, and how many of the channels of these: the first ones.
        from_end: Inputs among these of which it is the last channels.
        inputs: Further inputs that the decoder refers to, for their grid or their mask.
        can_share_attention: Whether it has queries that may attend through a shared attention
            (`SharedAttentionConfig`). Then its `num_query_channels` is not None, and it takes
            `DecoderParts.attended_channels` and `DecoderRequest.attention`.
    """

    embedding: str | None = None
    elements: Mapping[str, int] = field(default_factory=dict)
    from_end: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    can_share_attention: bool = False

    @property
    def names(self) -> set[str]:
        """All inputs that the decoder refers to."""
        tied = () if self.embedding is None else (self.embedding,)
        return {*tied, *self.elements, *self.inputs}


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(ComponentConfig):
    """Base of all decoder configurations."""

    def needs(self) -> DecoderNeeds:
        """Returns what a decoder of these settings needs of the model's other parts; nothing by default.

        The configuration of a model checks the names by it, and the model builds the decoder's parts by it.
        """
        return DecoderNeeds()


@dataclass(frozen=True, kw_only=True)
class DecoderParts:
    """What a decoder is built with besides its settings: what the model's parts must agree on.

    Attributes:
        latent_channels: D.
        attended_channels: Width of what a shared attention makes of a query; None for an attention of its own.
        embedding: The table of tokens that `DecoderNeeds.embedding` asks for; None if that input has none. It belongs
            to the input's adapter, so hold it without registering it, as `TiedOutput` does: it is saved once.
    """

    latent_channels: int
    attended_channels: int | None = None
    embedding: LearnedArray | None = None


@dataclass(frozen=True, kw_only=True)
class DecoderRequest:
    """What one call of a decoder asks for. Decoders that take no points are never given any, nor a grid.

    Attributes:
        points: Points of the output, of its `Decoder.query_grid`; the whole output if None.
        grid: Another grid than `Decoder.query_grid`, for the whole output at another resolution.
        chunk_size: Queries that are decoded at once.
        memory_budget: Bytes that a chunk may take, if `chunk_size` is None; the decoder's default if both are None.
        on_decoded: Called after each chunk with the number of queries in it.
        attention: The shared attention, where the decoder was built with `DecoderParts.attended_channels`.
    """

    points: Points | None = None
    grid: tuple[int, ...] | None = None
    chunk_size: int | None = None
    memory_budget: int | None = None
    on_decoded: Callable[[int], None] | None = None
    attention: QueryAttention | None = None


WHOLE_OUTPUT = DecoderRequest()
"""The request for the whole output, with an attention of the decoder's own."""


class Decoder(nn.Module, ABC):
    """Turns an encoded batch into one output.

    A subclass has a `Config`, a dataclass of its own that derives from `DecoderConfig`, is built as
    ``Decoder(config, parts)`` with a `DecoderParts`, and is made known with `perceiver_io.register_decoder`.

    Attributes:
        takes_points: Whether it decodes single points and other grids. If so, it overrides `query_grid`.
        num_query_channels: Width of its queries; None where it cannot share an attention.
    """

    Config: ClassVar[type[DecoderConfig]]
    takes_points: ClassVar[bool] = False
    num_query_channels: int | None = None

    @abstractmethod
    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> Tensor:
        """Decodes a batch.

        Args:
            encoded: The latents, and the byte arrays of the inputs.
            request: What is asked for.

        Returns:
            (B, …) the whole output, as the decoder documents it; (B, O, V) at O points, V values each.
        """

    def query_grid(self, encoded: Encoded) -> tuple[int, ...]:
        """Returns the size of each axis of the grid that points are points of.

        Args:
            encoded: The batch, because a grid may follow an input's.

        Raises:
            ValueError: The decoder takes no points, or the grid follows an input that is not there.
        """
        raise ValueError(f"{type(self).__name__} takes no points: its output is decoded whole.")
