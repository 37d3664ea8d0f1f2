"""The model: adapters, encoder and decoders, put together from a configuration.

Shape legend: B batch, M elements, C channels, N latents, D latent channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from perceiver_io.adapter import InputAdapter
from perceiver_io.attention_maps import AttentionMap, attention_maps
from perceiver_io.byte_array import ByteArray, ByteArrayPacker
from perceiver_io.causal.attention_map import causal_attention_map
from perceiver_io.causal.encoder import CausalEncoder, CausalEncoderConfig
from perceiver_io.causal.sequence import SequenceAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.config_json import given_dtype
from perceiver_io.decoder import Decoder, DecoderConfig, DecoderParts, DecoderRequest, Encoded
from perceiver_io.encoder import Encoder
from perceiver_io.input_tools import bool_mask, check_names, check_plain, listed, whole_number
from perceiver_io.layer_outputs import with_layer_outputs
from perceiver_io.layers import under_autocast
from perceiver_io.points import Points
from perceiver_io.pretrained import PerceiverIOPreTrainedModel, building
from perceiver_io.query_attention import SharedAttention
from perceiver_io.value_checks import looks_at
from perceiver_io.zero_gradients import with_zero_gradients

__all__ = ["PerceiverIO", "PerceiverIOOutput"]

_MOST_CHANNELS = 1_000_000


@dataclass
class PerceiverIOOutput(ModelOutput):
    """What a forward pass gives: ``out["label"]`` is the output of that name.

    Attributes:
        last_hidden_state: (B, N, D) latents; `latents` is another name for them.
        outputs: Each output by its name.
        hidden: As `Encoded.hidden`: by input name, (B, M) bool, True where a mask token stood for the element.
    """

    last_hidden_state: Tensor = None  # type: ignore[assignment]  # fields of a ModelOutput have defaults
    outputs: dict[str, Tensor] = None  # type: ignore[assignment]
    hidden: dict[str, Tensor] = None  # type: ignore[assignment]

    @property
    def latents(self) -> Tensor:
        """(B, N, D)."""
        return self.last_hidden_state

    def __getitem__(self, key: Any) -> Any:
        return self.outputs[key] if key in self.outputs else super().__getitem__(key)

    def to_tuple(self) -> tuple[Any, ...]:
        """Returns what there is, in the order of the fields, whatever outputs are called."""
        return tuple(self.values())


class PerceiverIO(PerceiverIOPreTrainedModel):
    """A Perceiver IO: any inputs, one encoder, any outputs (Perceiver IO, section 3).

    Args:
        config: The inputs, the encoder and the outputs.
    """

    def __init__(self, config: PerceiverIOConfig) -> None:
        super().__init__(config)
        if config.is_empty:
            raise ValueError("The configuration is empty: give it inputs, an encoder and outputs.")
        given_dtype(config.dtype)  # it is only used, and written, later
        with building(type(self).__name__):
            self._build(config)
            self.post_init()

    def _build(self, config: PerceiverIOConfig) -> None:
        adapters: dict[str, InputAdapter] = {
            name: config.adapter_class(name)(part) for name, part in config.inputs.items()
        }
        self.adapters = nn.ModuleDict(adapters)
        self.packer = ByteArrayPacker(
            {name: adapter.num_channels for name, adapter in adapters.items()},
            config=config.packing,
            num_elements={
                name: adapter.num_elements
                for name, adapter in adapters.items()
                if adapter.num_elements is not None
            },
            last=config.encoder.sequence if isinstance(config.encoder, CausalEncoderConfig) else None,
        )
        if self.packer.num_channels > _MOST_CHANNELS:  # a file may ask for any number
            raise ValueError(
                f"Elements have at most {_MOST_CHANNELS:,} channels, those of the inputs {list(adapters)} would have "
                f"{self.packer.num_channels:.3g}."
            )
        self.encoder: Encoder | CausalEncoder
        if isinstance(config.encoder, CausalEncoderConfig):
            _check_sequence(config.encoder.sequence, adapters)
            self.encoder = CausalEncoder(config.encoder, input_channels=self.packer.num_channels)
        else:
            self.encoder = Encoder(
                config.encoder,
                input_channels=self.packer.num_channels,
                content_channels=[adapter.num_content_channels for adapter in adapters.values()],
            )
        decoders = {
            name: _built_decoder(name, part, config, adapters) for name, part in config.outputs.items()
        }
        self.decoders = nn.ModuleDict(decoders)
        self.shared_attention = None
        if config.shared_attention is not None:
            self.shared_attention = SharedAttention(
                config.shared_attention,
                query_channels={
                    name: _query_channels(name, decoders[name]) for name in config.shared_attention.outputs
                },
                latent_channels=config.encoder.latent_channels,
            )

    @with_layer_outputs
    def forward(
        self,
        inputs: Mapping[str, Tensor] | None = None,
        masks: Mapping[str, Tensor] | None = None,
        *,
        outputs: Iterable[str] | None = None,
        points: Mapping[str, Tensor | None] | None = None,
        **arguments: Tensor | None,
    ) -> PerceiverIOOutput:
        """Encodes a batch and decodes outputs.

        Args:
            inputs: Raw inputs by name; an input that the batch lacks may be left out.
            masks: Masks by input name, True = real, in the shapes that the adapters document.
            outputs: As `decode`.
            points: As `decode`.
            **arguments: Inputs and masks as `transformers` calls them (`pixel_values`, `input_ids`, `attention_mask`)
                in place of `inputs` and `masks`: each goes to the one adapter whose `argument_names` it is among.

        Returns:
            The outputs by name, the latents, and which elements mask tokens stood for.

        Raises:
            ValueError: An input or mask is unknown or does not fit its adapter, a sample is wholly masked, or what
                is asked for is not there.
        """
        if arguments:
            inputs, masks = self._by_name(inputs, masks, arguments)
        if inputs is None:
            raise ValueError(
                f"There are no inputs. The model has {list(self.adapters)}: give it a mapping by name."
            )
        encoded = self.encode(inputs, masks)
        decoded = self.decode(encoded, outputs, points=points)
        return PerceiverIOOutput(
            last_hidden_state=encoded.latents, outputs=decoded, hidden=dict(encoded.hidden)
        )

    def encode(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        *,
        hidden: Mapping[str, Tensor] | None = None,
        num_latents: int | None = None,
    ) -> Encoded:
        """Encodes a batch once, for any number of calls of `decode`.

        Args:
            inputs: As `forward`.
            masks: As `forward`.
            hidden: Elements that the latents are not to see, by input name: (B, M) bool. They are left out as masked
                ones are, or shown as mask tokens where the input has one, and nothing of them reaches other elements.
                The byte arrays have them, so that queries can be made of their positions.
            num_latents: How many of the last elements are latents of a causal encoder; all that it has if None.

        Returns:
            The latents, the byte arrays, and which elements were hidden.

        Raises:
            ValueError: As `forward`; or what is hidden does not fit.
        """
        byte_arrays = self.adapt(inputs, masks, hidden)
        packed, segments = self.packer(byte_arrays)
        _check_some_real(packed)
        if isinstance(self.encoder, CausalEncoder):
            sequence = self.encoder.config.sequence
            if sequence not in segments:
                raise ValueError(
                    f"The input {sequence!r}, which is continued, is missing: got {list(segments)}."
                )
            latents_BND = self.encoder(packed, num_latents=num_latents, num_before=segments[sequence].start)
        elif num_latents is None:
            latents_BND = self.encoder(packed)
        else:
            raise ValueError("Only a causal encoder can be told its num_latents: others have learned ones.")
        latents_BND = with_zero_gradients(latents_BND, self._perhaps_left_out(inputs))
        return Encoded(
            latents=latents_BND,
            byte_arrays={name: part.in_type_of(latents_BND) for name, part in byte_arrays.items()},
            hidden={
                **(hidden or {}),
                **{name: segment.hidden for name, segment in segments.items() if segment.hidden is not None},
            },
        )

    def decode(
        self,
        encoded: Encoded,
        outputs: Iterable[str] | None = None,
        *,
        points: Mapping[str, Tensor | None] | None = None,
        grids: Mapping[str, Sequence[int]] | None = None,
        chunk_size: int | None = None,
        memory_budget: int | None = None,
        on_decoded: Callable[[int], None] | None = None,
    ) -> dict[str, Tensor]:
        """Decodes outputs of an encoded batch: all of them, some, or some points of some.

        Queries do not see each other, so what is asked for changes nothing in what comes out, and neither does the
        size of the chunks.

        Args:
            encoded: What `encode` returned.
            outputs: Names of the outputs that are wanted; if None, those that `points` and `grids` name, or all.
            points: Points of dense outputs, by name, as `Points.parse` reads them. The same for all samples: (O,)
                integer row-major indices of the output's grid, (O, A) integer indices along each axis, or (O, A)
                floating-point coordinates in [-1, 1]. Different for each: the same with a batch axis before. Where
                queries yield patches, the grid is one of patches. None asks for the whole output.
            grids: Sizes of another query grid of dense outputs, by name: the whole output at another resolution.
            chunk_size: Output queries that are decoded at once.
            memory_budget: Bytes that a chunk may take, where there is no `chunk_size`. Without either, 256 MiB; while
                gradients are recorded, all at once.
            on_decoded: Called with the number of output queries after each chunk of a dense output, to show progress.

        Returns:
            The outputs by name, whole as their decoders document them, (B, O, values per query) at points.

        Raises:
            ValueError: An output is unknown, has no points, or a point lies outside; a size is below 1.
        """
        self._check_encoded(encoded)
        check_names(points, name="points")
        check_names(grids, name="grids")
        points, grids = points or {}, grids or {}
        names = list(self.decoders)
        if outputs is not None:
            names = _names(outputs)
        elif points or grids:
            names = [name for name in names if name in points or name in grids]
        if unknown := sorted({*names, *points, *grids} - set(self.decoders)):
            raise ValueError(f"The model has no outputs {unknown}; it has {list(self.decoders)}.")
        if unused := sorted({*points, *grids} - set(names)):
            raise ValueError(f"There are points or grids for {unused}, but only {names} are asked for.")
        if chunk_size is not None:
            chunk_size = whole_number(chunk_size, name="chunk_size")
        if memory_budget is not None:
            memory_budget = whole_number(memory_budget, name="memory_budget")
        request = DecoderRequest(chunk_size=chunk_size, memory_budget=memory_budget, on_decoded=on_decoded)
        return {
            name: self._decode(name, encoded, request, points=points.get(name), grid=grids.get(name))
            for name in names
        }

    def _check_encoded(self, encoded: Encoded) -> None:
        if not isinstance(encoded, Encoded):
            raise ValueError(
                f"encoded must be what encode() returned, an Encoded, got {type(encoded).__name__}."
            )
        width, expected = encoded.latents.shape[-1], self.config.encoder.latent_channels
        if width != expected:
            raise ValueError(
                f"The encoded batch has latents of {width} channels, those of this model have {expected}: it is of "
                "another model."
            )

    def _decode(
        self,
        name: str,
        encoded: Encoded,
        request: DecoderRequest,
        *,
        points: Tensor | None,
        grid: Sequence[int] | None,
    ) -> Tensor:
        """Decodes one output: the request that all have in common, with what is asked of this one."""
        decoder = self.decoders[name]
        assert isinstance(decoder, Decoder)
        if self.shared_attention is not None and name in self.shared_attention.padding:
            request = replace(request, attention=self.shared_attention.of(name))
        if not decoder.takes_points and (points is not None or grid is not None):
            raise ValueError(f"The output {name!r} has no points: ask for it whole, with None.")
        if points is not None and grid is not None:
            raise ValueError(f"The output {name!r} is asked for at points and on a grid: choose one.")
        if points is not None:
            parsed = Points.parse(
                points,
                decoder.query_grid(encoded),
                name=name,
                batch_size=encoded.latents.shape[0],
                device=encoded.latents.device,
            )
            request = replace(request, points=parsed)
        if grid is not None:
            try:
                sizes = (
                    [whole_number(size, name="A size") for size in grid] if isinstance(grid, Sequence) else []
                )
            except ValueError:
                sizes = []
            if not sizes:
                raise ValueError(
                    f"The grid of the output {name!r} must have sizes of at least 1, got {grid!r:.80}."
                )
            request = replace(request, grid=tuple(sizes))
        decoded: Tensor = decoder(encoded, request)
        return decoded

    def attention_maps(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        *,
        latents: Iterable[int] | None = None,
    ) -> list[AttentionMap]:
        """Returns what each cross-attend of the encoder looks at, over the grid of each input.

        Runs without gradients and without dropout. The latents of a causal encoder are those on the last elements.

        Args:
            inputs: As `forward`.
            masks: As `forward`.
            latents: Indices of the latents whose maps are wanted; all if None. Each map holds B x H x latents x M
                floats, three times over.

        Returns:
            One `AttentionMap` per cross-attend, in order.

        Raises:
            ValueError: As `forward`; or a latent's index is out of range.
        """
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                packed, segments = self.packer(self.adapt(inputs, masks))
                _check_some_real(packed)
                if isinstance(self.encoder, CausalEncoder):
                    return [causal_attention_map(self.encoder, packed, segments, latents=latents)]
                return attention_maps(self.encoder, packed, segments, latents=latents)
        finally:
            self.train(training)

    def _by_name(
        self,
        inputs: Mapping[str, Tensor] | None,
        masks: Mapping[str, Tensor] | None,
        arguments: Mapping[str, Tensor | None],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs and masks by the names of the configuration, with those that came by the names of a field."""
        found = (dict(inputs or {}), dict(masks or {}))
        for argument, value in arguments.items():
            owners = [
                (name, place)
                for name, adapter in self.adapters.items()
                for place, known in enumerate(cast(InputAdapter, adapter).argument_names or ())
                if known == argument
            ]
            if len(owners) != 1:
                raise ValueError(
                    f"The argument {argument!r} belongs to {len(owners)} of the inputs {list(self.adapters)}, expected "
                    "one: give inputs and masks by name."
                )
            ((name, place),) = owners
            if value is not None:
                found[place][name] = bool_mask(value, name=argument) if place else value
        return found

    def _perhaps_left_out(self, inputs: Mapping[str, Tensor]) -> Iterator[nn.Parameter]:
        """Parameters that this batch leaves out, or that a loss may leave out that is not about all outputs."""
        yield from self.packer.parameters()
        for name, adapter in self.adapters.items():
            if name not in inputs:
                yield from adapter.parameters()
        yield from self.decoders.parameters()
        if self.shared_attention is not None:
            yield from self.shared_attention.parameters()

    def adapt(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        hidden: Mapping[str, Tensor] | None = None,
    ) -> dict[str, ByteArray]:
        """Returns the byte array of each input that is there, before they are packed; arguments as `encode`."""
        for what, given in (("inputs", inputs), ("masks", masks), ("hidden", hidden)):
            check_names(given, name=what)
        masks, hidden = masks or {}, hidden or {}
        if unknown := sorted(set(inputs) - set(self.adapters)):
            raise ValueError(f"The model has no inputs {unknown}; it has {list(self.adapters)}.")
        if unknown := sorted(set(masks) - set(inputs)):
            raise ValueError(f"There are masks for {unknown}, but inputs only for {sorted(inputs)}.")
        if unknown := sorted(set(hidden) - set(inputs)):
            raise ValueError(
                f"Elements of {unknown} are to be hidden, but there are inputs only for {sorted(inputs)}."
            )
        if not inputs:
            raise ValueError(f"At least one of the inputs {list(self.adapters)} is needed, got none.")
        weight = self.encoder.weight
        for name, x in inputs.items():
            check_plain(x, name=f"The input {name!r}", device=weight.device)
            if not x.is_floating_point() or x.dtype == weight.dtype:
                continue
            # What is sharded over processes (a DTensor) has the type that it is kept in, not that of computing.
            if not under_autocast(x) and not hasattr(weight, "to_local"):
                raise ValueError(
                    f"The input {name!r} is {x.dtype}, but the model is {weight.dtype}: convert one to the other with "
                    "`.to(dtype)`, or run the model under torch.autocast."
                )
        for what, given in (("mask of", masks), ("mask of what is hidden in", hidden)):
            for name, one in given.items():
                check_plain(one, name=f"The {what} {name!r}", device=weight.device)
        batches = [x.shape[0] for x in inputs.values() if x.ndim]
        if any(size != batches[0] for size in batches[1:]):
            sizes = {name: x.shape[0] for name, x in inputs.items() if x.ndim}
            raise ValueError(f"All inputs of a batch must have the same batch size, got {sizes}.")
        adapted = {}
        for name, adapter in self.adapters.items():
            if name not in inputs:
                continue
            x, mask = inputs[name], masks.get(name)
            if name not in hidden:
                adapted[name] = adapter(x, mask)
                continue
            assert isinstance(adapter, InputAdapter)
            adapted[name] = _without(
                name, adapter(x, adapter.mask_without(hidden[name], x, mask)), hidden[name]
            )
        return adapted


def _names(outputs: Iterable[str]) -> list[str]:
    """The names that are asked for, as a list."""
    if isinstance(outputs, str) or not isinstance(outputs, Iterable):
        raise ValueError(f"outputs must be names of outputs, such as ['label'], got {outputs!r:.80}.")
    names = list(outputs)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise ValueError(f"outputs must be names of outputs, such as ['label'], got {listed(wrong):.80}.")
    return names


def _check_sequence(name: str, adapters: Mapping[str, InputAdapter]) -> None:
    if not isinstance(adapters[name], SequenceAdapter):
        raise ValueError(
            f"A causal encoder continues the input {name!r}, whose adapter must be a SequenceAdapter, got "
            f"{type(adapters[name]).__name__}."
        )


def _built_decoder(
    name: str, part: DecoderConfig, config: PerceiverIOConfig, adapters: Mapping[str, InputAdapter]
) -> Decoder:
    """Builds the decoder of an output, with what it needs of the other parts."""
    needs, decoder_class = part.needs(), config.decoder_class(name)
    attended_channels = None
    if config.shared_attention is not None and name in config.shared_attention.outputs:
        if not needs.can_share_attention:
            raise ValueError(
                f"The output {name!r} cannot share an attention: {decoder_class.__name__} has none. "
                "Take it off shared_attention.outputs."
            )
        attended_channels = config.shared_attention.output_channels
    for source, wanted in needs.elements.items():
        available = adapters[source].num_channels
        if wanted > available:
            raise ValueError(
                f"The output {name!r} takes {wanted} channels of the input {source!r}, which has {available}."
            )
    parts = DecoderParts(
        latent_channels=config.encoder.latent_channels,
        attended_channels=attended_channels,
        embedding=None if needs.embedding is None else adapters[needs.embedding].tied_embedding(),
    )
    decoder: Decoder = decoder_class(part, parts)
    return decoder


def _without(name: str, part: ByteArray, hidden_BM: Tensor) -> ByteArray:
    """A byte array whose hidden elements are masked."""
    if hidden_BM.dtype != torch.bool or hidden_BM.shape != part.values.shape[:2]:
        raise ValueError(
            f"What is hidden of the input {name!r} must be bool {tuple(part.values.shape[:2])} (samples, elements), "
            f"got {hidden_BM.dtype} {tuple(hidden_BM.shape)}."
        )
    return replace(part, mask=~hidden_BM if part.mask is None else part.mask & ~hidden_BM)


def _query_channels(name: str, decoder: Decoder) -> int:
    if decoder.num_query_channels is None:
        raise ValueError(
            f"The output {name!r} says that it can share an attention, but {type(decoder).__name__} has no "
            "num_query_channels. Set it in the constructor."
        )
    return decoder.num_query_channels


def _check_some_real(byte_array: ByteArray) -> None:
    if byte_array.mask is None or not looks_at(byte_array.mask):
        return
    wholly_masked = ~byte_array.mask.any(dim=1)
    if wholly_masked.any():
        samples = listed(wholly_masked.nonzero().flatten().tolist())
        raise ValueError(
            f"Every element of the samples [{samples}] is masked: there is nothing to attend to. Mask less, or drop "
            "these samples from the batch."
        )
