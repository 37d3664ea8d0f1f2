"""The contract of decoders, as checks that raise an AssertionError which says what is wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver_io.byte_array import ByteArray
from perceiver_io.component import ComponentConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.decoder import Decoder, DecoderConfig, DecoderParts, DecoderRequest, Encoded
from perceiver_io.layers import LearnedArray
from perceiver_io.model import PerceiverIO
from perceiver_io.points import Points
from perceiver_io.query_attention import SharedAttention, SharedAttentionConfig
from perceiver_io.testing import common
from perceiver_io.testing.elements import ElementsAdapter

__all__ = ["DECODER_CHECKS", "DecoderCase", "check_decoder"]


@dataclass(frozen=True, kw_only=True, eq=False)
class DecoderCase:
    """A decoder, with an encoded batch to try it on.

    Attributes:
        decoder_class: The class.
        config: Its configuration.
        encoded: A batch of at least two samples in float32, with the byte arrays that the decoder needs, if any.
        output_shape: Shape of what is decoded, without the batch axis.
        embedding_size: Tokens and channels of the embedding that the decoder is tied to, if its configuration names
            an input for one (`DecoderNeeds.embedding`).
    """

    decoder_class: type[Decoder]
    config: DecoderConfig
    encoded: Encoded
    output_shape: tuple[int, ...]
    embedding_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.encoded.latents.shape[0] < 2:
            raise ValueError(
                f"A case needs at least two samples, got latents {tuple(self.encoded.latents.shape)}."
            )

    def build(self, *, attended_channels: int | None = None, dtype: torch.dtype = torch.float32) -> Decoder:
        """Returns a new decoder, the same one each time.

        Args:
            attended_channels: Width of what a shared attention makes of its queries; None for one of its own.
            dtype: Type of its parameters.
        """
        with common.seeded():
            size = self.embedding_size
            parts = DecoderParts(
                latent_channels=self.encoded.latents.shape[-1],
                attended_channels=attended_channels,
                embedding=None if size is None else LearnedArray(*size, std=0.5).to(dtype),
            )
            make: Callable[[DecoderConfig, DecoderParts], Decoder] = self.decoder_class
            return make(self.config, parts).to(dtype)


def check_shape(case: DecoderCase) -> None:
    """What comes out has the shape that was announced, and is finite."""
    output = case.build()(case.encoded)
    expected = (case.encoded.latents.shape[0], *case.output_shape)
    assert output.shape == expected, f"The output is {tuple(output.shape)}, expected {expected}."
    assert output.is_floating_point(), f"The output is {output.dtype}, expected floating point."
    assert output.isfinite().all(), "The output holds NaN or infinities."


def check_samples(case: DecoderCase) -> None:
    """Samples do not see each other (outside of training)."""
    decoder = case.build().eval()
    together = decoder(case.encoded)
    for index in range(together.shape[0]):
        torch.testing.assert_close(
            together[index],
            decoder(_samples(case.encoded, slice(index, index + 1)))[0],
            msg=lambda message: f"A sample alone is decoded otherwise than in its batch: {message}",
        )


def check_gradients(case: DecoderCase) -> None:
    """Every parameter gets a finite gradient, and so does every latent."""
    decoder = case.build().train()
    latents = case.encoded.latents.detach().clone().requires_grad_()
    with common.seeded():
        common.check_gradients(decoder, decoder(dataclasses.replace(case.encoded, latents=latents)))
    reached = latents.grad is not None and bool((latents.grad != 0).any(dim=-1).all())
    assert reached, "Some latents have no influence on the output."


def check_numerical_gradients(case: DecoderCase) -> None:
    """Gradients by parameters and latents are right in float64."""
    byte_arrays = {
        name: dataclasses.replace(byte_array, values=byte_array.values.double())
        for name, byte_array in case.encoded.byte_arrays.items()
    }
    common.check_numerical_gradients(
        case.build(dtype=torch.float64).eval(),
        x=case.encoded.latents.double(),
        arguments=lambda latents: (Encoded(latents=latents, byte_arrays=byte_arrays),),
        result=lambda output: output,
    )


def check_twin(case: DecoderCase) -> None:
    """A model with this decoder is bit-equal after saving and loading."""
    adapters: dict[str, type] = {
        "elements_under_test": ElementsAdapter,
        "embedded_elements_under_test": _EmbeddedElementsAdapter,
    }
    decoders: dict[str, type] = {"component_under_test": case.decoder_class}
    inputs: dict[str, ComponentConfig] = {
        name: ElementsAdapter.Config(
            num_channels=byte_array.values.shape[-1], num_content_channels=byte_array.num_content_channels
        )
        for name, byte_array in case.encoded.byte_arrays.items()
    }
    if case.embedding_size is not None:
        tied_to = case.config.needs().embedding
        assert tied_to is not None, (
            "The case has an embedding_size, but its configuration needs no embedding."
        )
        inputs[tied_to] = _EmbeddedElementsAdapter.Config(num_channels=2, embedding_size=case.embedding_size)
    with common.seeded():
        model = PerceiverIO(
            PerceiverIOConfig(
                inputs=inputs or {"x": ElementsAdapter.Config(num_channels=2)},
                encoder=common.tiny_encoder(latent_channels=case.encoded.latents.shape[-1]),
                outputs={"y": case.config},
                adapters=adapters,
                decoders=decoders,
            )
        )
    common.check_twin(
        model, lambda model: model.decode(case.encoded)["y"], adapters=adapters, decoders=decoders
    )


def check_config(case: DecoderCase) -> None:
    """The configuration is frozen, keyword-only, survives JSON and refuses unknown keys; constructors name all."""
    common.check_config(case.config, case.decoder_class)
    common.check_constructor(case.decoder_class)


def check_bad_input(case: DecoderCase) -> None:
    """Latents of an empty batch, a wrong rank or type, or with NaN: a ValueError each, before anything is decoded."""
    decoder, latents = case.build(), case.encoded.latents
    spoilt = latents.clone()
    spoilt[-1, -1, -1] = math.nan
    bad = {
        "An empty batch": latents[:0],
        "Latents without their batch axis": latents[0],
        "Latents with an axis too many": latents.unsqueeze(0),
        "Latents of int64": latents.to(torch.int64),
        "Latents with NaN": spoilt,
    }
    for what, wrong in bad.items():
        common.check_refused(
            what,
            lambda wrong=wrong: decoder(Encoded(latents=wrong, byte_arrays=case.encoded.byte_arrays)),  # type: ignore[misc]
        )


def check_needs(case: DecoderCase) -> None:
    """It uses no inputs, nor channels of their elements, but those that its configuration says it needs."""
    needs = case.config.needs()
    decoder = case.build().eval()
    byte_arrays = {}
    for name, byte_array in case.encoded.byte_arrays.items():
        if name in needs.names:
            values, count = byte_array.values.clone(), needs.elements.get(name, 0)
            if name in needs.from_end:
                values[..., : values.shape[-1] - count] = -3.0
            else:
                values[..., count:] = -3.0
            byte_arrays[name] = dataclasses.replace(byte_array, values=values)
    with torch.no_grad():
        try:
            restricted = decoder(dataclasses.replace(case.encoded, byte_arrays=byte_arrays))
        except (KeyError, ValueError) as error:
            raise AssertionError(
                f"Without the inputs that its configuration does not name it raises {error!r}. Name all of them in "
                "Config.needs()."
            ) from error
        _assert_same(
            decoder(case.encoded),
            restricted,
            "The output depends on inputs, or on channels of their elements, that Config.needs() does not name.",
        )


def check_points(case: DecoderCase) -> None:
    """Queries do not see each other: chunks, order and choice of points change nothing, if it takes points."""
    if not case.decoder_class.takes_points:
        return
    decoder = case.build().eval()
    batch_size = case.encoded.latents.shape[0]
    with torch.no_grad():
        grid = decoder.query_grid(case.encoded)
        count = math.prod(grid)
        _assert_same(
            decoder(case.encoded),
            decoder(case.encoded, DecoderRequest(chunk_size=1)),
            "The output is another one where it is decoded query by query.",
        )
        values = decoder(case.encoded, DecoderRequest(points=Points.of_range(grid, 0, count)))
        assert values.ndim == 3 and values.shape[:2] == (batch_size, count), (
            f"At {count} points the output is {tuple(values.shape)}, expected (batch, points, values)."
        )
        assert values.numel() == decoder(case.encoded).numel(), (
            "All points together have not as many values as the whole output."
        )
        chosen = torch.arange(count - 1, -1, -2)
        points = Points.parse(chosen, grid, name="the case")
        _assert_same(
            values[:, chosen],
            decoder(case.encoded, DecoderRequest(points=points, chunk_size=2)),
            "Some points alone are decoded otherwise than among all.",
        )
        samples = torch.arange(batch_size)[:, None]
        own = (chosen + samples) % count
        indices = torch.stack(torch.unravel_index(own, grid), dim=-1)
        points = Points.parse(indices, grid, name="the case", batch_size=batch_size)
        _assert_same(
            values[samples, own],
            decoder(case.encoded, DecoderRequest(points=points, chunk_size=2)),
            "Points of each sample's own are decoded otherwise than among all.",
        )


def check_shared_attention(case: DecoderCase) -> None:
    """With an attention that outputs share it decodes the same shape, and all of both learns, if it can share."""
    can_share = case.config.needs().can_share_attention
    width = case.build().num_query_channels
    assert can_share == (width is not None), (
        f"Config.needs().can_share_attention is {can_share}, but num_query_channels is {width}: it is the width of the "
        "queries of a decoder that can share an attention, and None else."
    )
    if width is None:
        return
    attended_channels = 5 if case.embedding_size is None else case.embedding_size[1]
    decoder = case.build(attended_channels=attended_channels).train()
    config = SharedAttentionConfig(outputs=("other", "y"), output_channels=attended_channels)
    with common.seeded():
        shared = SharedAttention(
            config,
            query_channels={"other": width + 1, "y": width},
            latent_channels=case.encoded.latents.shape[-1],
        )
        output = decoder(case.encoded, DecoderRequest(attention=shared.of("y")))
        expected = (case.encoded.latents.shape[0], *case.output_shape)
        assert output.shape == expected, (
            f"With a shared attention the output is {tuple(output.shape)}, expected {expected}."
        )
        common.check_gradients(decoder, output)
    without = [
        name
        for name, parameter in shared.named_parameters()
        if parameter.grad is None and name != "padding.other.weight"
    ]
    assert not without, f"These parameters of the shared attention get no gradient: {without}."


DECODER_CHECKS: dict[str, Callable[[DecoderCase], None]] = {
    "config": check_config,
    "shape": check_shape,
    "samples": check_samples,
    "gradients": check_gradients,
    "numerical_gradients": check_numerical_gradients,
    "twin": check_twin,
    "bad_input": check_bad_input,
    "needs": check_needs,
    "points": check_points,
    "shared_attention": check_shared_attention,
}
"""The checks that every decoder passes, by name, each a function of a `DecoderCase`."""


def check_decoder(case: DecoderCase) -> None:
    """Runs every check of `DECODER_CHECKS`.

    Raises:
        AssertionError: The decoder breaks the contract.
    """
    for check in DECODER_CHECKS.values():
        check(case)


class _EmbeddedElementsAdapter(ElementsAdapter):
    """Elements beside a table of tokens, for decoders that are tied to one."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ElementsAdapter.Config):
        """Settings of the adapter.

        Attributes:
            embedding_size: Tokens and channels of the table.
        """

        embedding_size: tuple[int, int]

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.embedding = LearnedArray(*config.embedding_size)

    def tied_embedding(self) -> LearnedArray:
        return self.embedding


def _assert_same(first: Tensor, second: Tensor, message: str) -> None:
    torch.testing.assert_close(
        first, second, rtol=1e-4, atol=1e-5, msg=lambda details: f"{message} {details}"
    )


def _samples(encoded: Encoded, samples: slice) -> Encoded:
    def part(byte_array: ByteArray) -> ByteArray:
        mask: Tensor | None = None if byte_array.mask is None else byte_array.mask[samples]
        return dataclasses.replace(byte_array, values=byte_array.values[samples], mask=mask)

    return Encoded(
        latents=encoded.latents[samples],
        byte_arrays={name: part(byte_array) for name, byte_array in encoded.byte_arrays.items()},
        hidden={name: hidden_BM[samples] for name, hidden_BM in encoded.hidden.items()},
    )
