"""The decoder of dense outputs: one query for each element of a grid, at all or any of its points.

Shape legend: B batch, N latents, D latent channels, O output queries, A axes of the query grid, Q query channels,
E channels of what a query becomes, F output channels, V values of a query (F for each element of its patch).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from perceiver_io.brackets import Layers
from perceiver_io.byte_array import ByteArray
from perceiver_io.cross_attention import QueryChunks
from perceiver_io.decoder import (
    WHOLE_OUTPUT,
    Decoder,
    DecoderConfig,
    DecoderNeeds,
    DecoderParts,
    DecoderRequest,
    Encoded,
)
from perceiver_io.layers import TiedOutput, linear
from perceiver_io.points import Points
from perceiver_io.position import (
    FourierPositionEncoding,
    LearnedPositionEncoding,
    Resize,
    Spacing,
    at_elements,
    axis_coordinates,
    flat_indices,
    interpolate,
)
from perceiver_io.query_attention import QueryAttention, QueryAttentionConfig
from perceiver_io.registry import register_decoder

__all__ = ["DEFAULT_MEMORY_BUDGET", "DenseDecoder"]

DEFAULT_MEMORY_BUDGET = 2**28  # bytes


@register_decoder("dense")
class DenseDecoder(Decoder):
    """Asks for every element of a grid, or for any of its points, in chunks (Perceiver IO, section 3.2).

    A query is made of an input's own elements, of positions, or of both side by side. Queries do not see each
    other, so that memory is bounded by the chunk, and any subset may be decoded alone.

    Args:
        config: The settings.
        parts: D, the width that a shared attention gives, and the table of tokens that the output is tied to.

    Raises:
        ValueError: The settings ask for an embedding that is not given, or whose size is another.
    """

    takes_points = True
    num_query_channels: int

    @dataclass(frozen=True, kw_only=True)
    class Config(DecoderConfig, QueryAttentionConfig):
        """Settings of the decoder; those of its attention too, unless that is shared.

        Attributes:
            output_channels: F.
            grid: Nominal size of each axis of the query grid; None where it follows an input's.
            grid_input: Input whose grid the queries have at run time.
            query_input: Input whose elements are part of the queries; the queries have its grid. A set has none: where
                queries have no positions besides, its M elements are a grid (M,).
            query_input_channels: How many of the first channels of its elements; content comes first.
            query_input_from: "start", or "end" for as many of the last channels: those of the position, so that a query
                is made of where an element lies and not of what it holds.
            upsampling: Along each axis, how many queries there are for an element of the input whose grid they have;
                1 each if None. What lies between elements is interpolated: with patches or convolutions of 4 x 4
                pixels, (4, 4) gives each pixel a query, whatever size an image has.
            position: "fourier", "learned", or "none".
            num_bands: Frequencies per axis of Fourier positions.
            max_resolution: Resolution per axis whose Nyquist frequency is the highest band; the nominal grid if None.
            include_coordinates: Whether Fourier positions begin with the raw coordinates.
            spacing: Coordinates of the grid's elements: "ends" from -1 to 1 with both ends, "steps" -1 + 2 i / n.
            position_channels: Width of learned positions.
            position_resize: What learned positions do on other grids: "interpolate", or "truncate" for sequences.
            query_channels: Width that queries are projected to; None leaves them as they are.
            patch_size: Elements that one query gives along each axis; 1 each if None.
            channel_axis: Where the channels lie among the axes of the whole output after the batch: 0 gives
                (B, F, H, W), 1 gives (B, T, F, H, W), -1 gives (B, T, F); None drops the axis of a single channel.
            tied_to: Input with an embedding that the output layer is tied to, plus a bias.
            scale: Factor on the output.
            offset: What is added to the output after that: with the deviation and the mean of numbers, those of any
                unit are learned as well as others.
            query_mask_input: Input whose masked elements' queries attend to nothing, as the original release's
                language model has it; None lets all queries attend.
        """

        output_channels: int
        grid: tuple[int, ...] | None = None
        grid_input: str | None = None
        query_input: str | None = None
        query_input_channels: int = 0
        query_input_from: Literal["start", "end"] = "start"
        upsampling: tuple[int, ...] | None = None
        position: Literal["fourier", "learned", "none"] = "fourier"
        num_bands: int = 64
        max_resolution: tuple[int, ...] | None = None
        include_coordinates: bool = True
        spacing: Spacing = "ends"
        position_channels: int = 256
        position_resize: Resize = "interpolate"
        query_channels: int | None = None
        patch_size: tuple[int, ...] | None = None
        channel_axis: int | None = 0
        tied_to: str | None = None
        scale: float = 1.0
        offset: float = 0.0
        query_mask_input: str | None = None
        use_query_residual: bool = False

        def __post_init__(self) -> None:
            super().__post_init__()
            self._check()

        @property
        def follows(self) -> str | None:
            """The input whose grid the queries have, if any."""
            return self.query_input or self.grid_input

        def bands_beyond(self, grid: tuple[int, ...] | None = None) -> tuple[int, ...]:
            """Returns the axes along which Fourier positions have bands above the Nyquist frequency of a grid.

            A model that is trained on such a grid cannot tell these bands from lower ones. What it makes of them
            between the grid's points are stripes, which show at a finer resolution.

            Args:
                grid: The grid of queries that are trained; the nominal one if None.

            Raises:
                ValueError: There is no grid, or it has another number of axes.
            """
            grid = self.grid if grid is None else grid
            if grid is None:
                raise ValueError("The output has no nominal grid: say which one is trained.")
            if self.position != "fourier":
                return ()
            finest = self.max_resolution or grid
            if len(finest) != len(grid):
                raise ValueError(f"The output's grid has {len(finest)} axes, got {grid}.")
            pairs = zip(finest, grid, strict=True)
            return tuple(axis for axis, (resolution, size) in enumerate(pairs) if resolution > size)

        def needs(self) -> DecoderNeeds:
            """Returns the inputs that the settings name, and that it may share an attention."""
            referred = (self.grid_input, self.query_mask_input)
            return DecoderNeeds(
                embedding=self.tied_to,
                elements={} if self.query_input is None else {self.query_input: self.query_input_channels},
                from_end=(self.query_input,) if self.query_input and self.query_input_from == "end" else (),
                inputs=tuple(name for name in referred if name is not None),
                can_share_attention=True,
            )

        def _check(self) -> None:
            name = "DenseDecoder.Config"
            for field in ("output_channels", "num_bands", "position_channels", "query_channels"):
                if getattr(self, field) is not None and getattr(self, field) < 1:
                    raise ValueError(f"{name}.{field} must be at least 1, got {getattr(self, field)}.")
            for field in ("grid", "max_resolution", "patch_size", "upsampling"):
                sizes = getattr(self, field)
                if sizes is not None and (not sizes or min(sizes) < 1):
                    raise ValueError(f"{name}.{field} must hold sizes of at least 1, got {sizes}.")
            if self.grid is None and self.follows is None:
                raise ValueError(
                    f"{name} needs a grid, or an input to take it from (grid_input, query_input)."
                )
            if self.grid_input and self.query_input and self.grid_input != self.query_input:
                raise ValueError(
                    f"Queries made of {self.query_input!r} have its grid, not that of {self.grid_input!r}."
                )
            if self.query_input_channels < 0 or (self.query_input is None) != (
                self.query_input_channels == 0
            ):
                raise ValueError(
                    f"{name}.query_input and query_input_channels go together, got {self.query_input!r} and "
                    f"{self.query_input_channels}."
                )
            if self.upsampling is not None and self.follows is None:
                raise ValueError(
                    f"{name}.upsampling is of an input's grid: it goes with query_input or grid_input."
                )
            if self.position == "none" and self.query_input is None:
                raise ValueError("Queries need positions, or an input that they are made of.")
            if self.position == "learned" and self.grid is None:
                raise ValueError("Learned positions need a nominal grid.")
            if self.position == "fourier" and self.grid is None and self.max_resolution is None:
                raise ValueError("Fourier positions need max_resolution, or a nominal grid.")
            if self.channel_axis is None and self.output_channels != 1:
                raise ValueError(
                    f"channel_axis=None drops the axis of a single channel, but there are {self.output_channels}."
                )
            if self.tied_to is not None and self.patch_size is not None:
                raise ValueError("An output that is tied to an embedding has no patches.")
            axes = {
                field: len(getattr(self, field))
                for field in ("grid", "max_resolution", "patch_size", "upsampling")
                if getattr(self, field) is not None
            }
            if len(set(axes.values())) > 1:
                raise ValueError(f"{name} mixes numbers of axes: {axes}.")
            if axes and self.channel_axis is not None:
                num_axes = next(iter(axes.values()))
                if not -num_axes - 1 <= self.channel_axis <= num_axes:
                    raise ValueError(
                        f"{name}.channel_axis must be from {-num_axes - 1} to {num_axes} where the grid has {num_axes} "
                        f"axes, got {self.channel_axis}."
                    )

    def __init__(self, config: Config, parts: DecoderParts) -> None:
        super().__init__()
        self.config = config
        self.position = _position(config)
        self.num_query_channels = config.query_input_channels + (
            0 if self.position is None else self.position.num_channels
        )
        self.query_projection: nn.Module = nn.Identity()
        if config.query_channels is not None:
            self.query_projection = linear(self.num_query_channels, config.query_channels)
            self.num_query_channels = config.query_channels
        attended_channels, embedding = parts.attended_channels, parts.embedding
        if attended_channels is None:
            self.cross_attend = config.cross_attention(
                query_channels=self.num_query_channels, latent_channels=parts.latent_channels
            )
            attended_channels = self.num_query_channels
        self.num_values = config.output_channels * math.prod(config.patch_size or (1,))
        self.output: nn.Linear | TiedOutput
        if config.tied_to is None:
            self.output = linear(attended_channels, self.num_values)
        else:
            expected = (config.output_channels, attended_channels)
            if embedding is None or embedding.weight.shape != expected:
                found = None if embedding is None else tuple(embedding.weight.shape)
                raise ValueError(
                    f"An output tied to {config.tied_to!r} needs an embedding {expected} (tokens, channels), got "
                    f"{found}."
                )
            self.output = TiedOutput(embedding)

    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> Tensor:
        """Decodes the whole output, at its own or another resolution, or some of its points.

        Args:
            encoded: The latents, and the byte arrays of the inputs that queries are made of.
            request: What is asked for. Without a size or budget of chunks they take 256 MiB; while gradients are
                recorded, which keeps everything anyway, all queries are one chunk.

        Returns:
            (B, O, V) for points; else the whole output, for example (B, F, H, W), as `Config.channel_axis` says.

        Raises:
            ValueError: An input that queries are made of is not there, or cannot be had at these points.
        """
        attention = self.cross_attend if request.attention is None else request.attention
        points, chunk_size = request.points, request.chunk_size
        query_grid = self.query_grid(encoded) if request.grid is None else request.grid
        if request.grid is not None:
            nominal = self.config.max_resolution or self.config.grid or self.query_grid(encoded)
            if len(query_grid) != len(nominal):
                raise ValueError(f"The output's grid has {len(nominal)} axes, got {query_grid}.")
        num_queries = math.prod(query_grid) if points is None else points.num_points
        if chunk_size is None:
            chunk_size = self._chunk_size(encoded.latents, request.memory_budget, num_queries, attention)

        def make(start: int, stop: int) -> tuple[Tensor, Tensor | None]:
            if points is None:
                part = Points.of_range(query_grid, start, stop, device=encoded.latents.device)
            else:
                part = points.part(start, stop)
            return self.queries(encoded, part), self._query_mask(encoded, part)

        chunks = QueryChunks(
            num_queries=num_queries,
            chunk_size=chunk_size,
            make=make,
            on_done=request.on_decoded,
            # The whole output is then arranged without a copy of it.
            channels_first=points is None
            and self.config.channel_axis == 0
            and self.config.patch_size is None,
        )
        if torch.is_grad_enabled():  # each chunk is checkpointed by itself, where checkpoints are wanted
            values_BOV = chunks.run(
                lambda queries_BOQ, query_mask_BO: attention(
                    queries_BOQ, encoded.latents, query_mask_BN=query_mask_BO, then=Layers(self.output)
                )
            )
        else:
            values_BOV = attention(chunks, encoded.latents, then=Layers(self.output))
        if self.config.scale != 1:
            values_BOV = values_BOV * self.config.scale
        if self.config.offset:
            values_BOV = values_BOV + self.config.offset
        return values_BOV if points is not None else self._arranged(values_BOV, query_grid)

    def query_grid(self, encoded: Encoded) -> tuple[int, ...]:
        """Returns the size of each axis of the query grid.

        Raises:
            ValueError: It follows an input that is not there, or that has no grid.
        """
        if (name := self.config.follows) is not None:
            if name in encoded.byte_arrays or self.config.grid is None or self.config.query_input:
                source = self._input(encoded, name)
                grid = source.grid
                if grid is None and self.config.query_input and self.config.position == "none":
                    return _index_grid(source)
                if grid is None:
                    raise ValueError(f"The input {name!r} has no grid that the output could follow.")
                nominal = self.config.max_resolution or self.config.grid or grid
                if len(grid) != len(nominal):
                    raise ValueError(
                        f"The output's grid has {len(nominal)} axes, that of the input {name!r} is {grid}."
                    )
                factors = self.config.upsampling or (1,) * len(grid)
                return tuple(size * factor for size, factor in zip(grid, factors, strict=True))
        assert self.config.grid is not None
        return self.config.grid

    def queries(self, encoded: Encoded, points: Points) -> Tensor:
        """Returns the queries of some points, (B, O, Q): an input's channels first, then positions; or a projection."""
        batch_size, like = encoded.latents.shape[0], encoded.latents
        parts: list[Tensor] = []
        if self.config.query_input is not None:
            source = self._input(encoded, self.config.query_input)
            parts.append(
                _at(
                    source,
                    self.config.query_input_channels,
                    points,
                    name=self.config.query_input,
                    spacing=self.config.spacing,
                    from_end=self.config.query_input_from == "end",
                )
            )
        if isinstance(self.position, FourierPositionEncoding):
            if points.indices is not None:
                position_OP = self.position.at_indices(
                    points.grid, points.indices, spacing=self.config.spacing, like=like
                )
            else:
                position_OP = self.position.at_coordinates(_given(points.coordinates), like=like)
            parts.append(position_OP.expand(batch_size, -1, -1))
        elif self.position is not None:
            if points.indices is not None:
                position_OP = self.position.at_indices(points.grid, points.indices, like=like)
            else:
                position_OP = self.position.at_coordinates(
                    _given(points.coordinates), spacing=self.config.spacing, like=like
                )
            parts.append(position_OP.expand(batch_size, -1, -1))
        queries_BOQ: Tensor = self.query_projection(torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0])
        return queries_BOQ

    def _query_mask(self, encoded: Encoded, points: Points) -> Tensor | None:
        name = self.config.query_mask_input
        byte_array = None if name is None else encoded.byte_arrays.get(name)
        if byte_array is None or byte_array.mask is None or points.indices is None:
            return None
        if _index_grid(byte_array) != points.grid:
            return None
        return at_elements(byte_array.mask, flat_indices(points.indices, points.grid))

    def _chunk_size(
        self,
        latents_BND: Tensor,
        memory_budget: int | None,
        num_queries: int,
        attention: QueryAttention,
    ) -> int | None:
        recorded = torch.is_grad_enabled() and (latents_BND.requires_grad or self.training)
        if torch.compiler.is_exporting() or (memory_budget is None and recorded):
            return None
        floats_per_query = attention.floats_per_query(
            num_queries=num_queries, num_inputs=latents_BND.shape[1]
        )
        floats_per_query += 2 * self.num_query_channels + self.num_values
        per_query = latents_BND.element_size() * floats_per_query * 4 // 3  # an allocator leaves holes
        if not torch.compiler.is_compiling():  # one compiled graph is to serve all sizes of a batch
            per_query *= latents_BND.shape[0]
        return max(1, (DEFAULT_MEMORY_BUDGET if memory_budget is None else memory_budget) // per_query)

    def _arranged(self, values_BOV: Tensor, grid: tuple[int, ...]) -> Tensor:
        """(B, O, V) -> the whole output."""
        patch = self.config.patch_size or (1,) * len(grid)
        x = values_BOV.unflatten(-1, (*patch, self.config.output_channels)).unflatten(1, grid)
        axes = len(grid)
        order = [0, *chain.from_iterable((axis, axes + axis) for axis in range(1, axes + 1)), -1]
        x = x.permute(order).reshape(
            x.shape[0], *(size * count for size, count in zip(grid, patch, strict=True)), -1
        )
        if self.config.channel_axis is None:
            return x.squeeze(-1)
        place = self.config.channel_axis
        return x.movedim(-1, place + 1 if place >= 0 else place).contiguous()

    def _input(self, encoded: Encoded, name: str) -> ByteArray:
        if name not in encoded.byte_arrays:
            raise ValueError(
                f"The queries of this output need the input {name!r}, which the batch lacks; it has "
                f"{sorted(encoded.byte_arrays)}."
            )
        return encoded.byte_arrays[name]


def _position(config: DenseDecoder.Config) -> FourierPositionEncoding | LearnedPositionEncoding | None:
    if config.position == "none":
        return None
    if config.position == "learned":
        return LearnedPositionEncoding(
            grid=_given(config.grid), num_channels=config.position_channels, resize=config.position_resize
        )
    return FourierPositionEncoding(
        num_bands=config.num_bands,
        max_resolution=_given(config.max_resolution or config.grid),
        include_coordinates=config.include_coordinates,
    )


def _at(
    source: ByteArray, num_channels: int, points: Points, *, name: str, spacing: Spacing, from_end: bool
) -> Tensor:
    """The first or the last channels of an input's elements at some points, (B, O, Q)."""
    start = source.values.shape[-1] - num_channels if from_end else 0
    values_BMC = source.values.narrow(-1, start, num_channels)
    if points.indices is not None and points.grid == _index_grid(source):
        return at_elements(values_BMC, flat_indices(points.indices, points.grid))
    if source.grid is None:
        raise ValueError(f"The input {name!r} has no grid: nothing lies between its elements.")
    if points.coordinates is not None:
        return interpolate(values_BMC, source.grid, points.coordinates, spacing=spacing)
    indices_OA = _given(points.indices)
    axes = axis_coordinates(points.grid, spacing=spacing, device=values_BMC.device)
    coordinates_OA = torch.stack([x_I[indices_OA[..., axis]] for axis, x_I in enumerate(axes)], dim=-1)
    return interpolate(values_BMC, source.grid, coordinates_OA, spacing=spacing)


def _index_grid(source: ByteArray) -> tuple[int, ...]:
    """The grid of an input, or that of the places in a set."""
    return (source.values.shape[1],) if source.grid is None else source.grid


def _given(value: Any) -> Any:
    assert value is not None
    return value
