"""Decoders: what they compute, and the contract suite over every registered one."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from perceiver_io import (
    ByteArray,
    ClassificationDecoder,
    Decoder,
    DecoderConfig,
    DecoderNeeds,
    DecoderParts,
    DecoderRequest,
    Encoded,
    PooledClassificationDecoder,
    RegressionDecoder,
)
from perceiver_io.decoder import WHOLE_OUTPUT
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.points import Points
from perceiver_io.registry import DECODERS
from perceiver_io.testing import DECODER_CHECKS, DecoderCase
from perceiver_io.token_decoder import NextTokenDecoder

PARTS = DecoderParts(latent_channels=8)


def encoded(**fields: Any) -> Encoded:
    generator = torch.Generator().manual_seed(1)
    return Encoded(**{"latents": torch.randn(2, 3, 8, generator=generator), "byte_arrays": {}} | fields)


def classification_case(**fields: Any) -> DecoderCase:
    config = ClassificationDecoder.Config(num_classes=5, **fields)
    return DecoderCase(
        decoder_class=ClassificationDecoder, config=config, encoded=encoded(), output_shape=(5,)
    )


def pooled_case(**fields: Any) -> DecoderCase:
    config = PooledClassificationDecoder.Config(num_classes=5, **fields)
    return DecoderCase(
        decoder_class=PooledClassificationDecoder, config=config, encoded=encoded(), output_shape=(5,)
    )


def regression_case(**fields: Any) -> DecoderCase:
    config = RegressionDecoder.Config(**fields)
    return DecoderCase(
        decoder_class=RegressionDecoder, config=config, encoded=encoded(), output_shape=(config.num_outputs,)
    )


def byte_array(*grid: int, num_channels: int = 5, mask: torch.Tensor | None = None) -> ByteArray:
    values = torch.randn(2, math.prod(grid), num_channels, generator=torch.Generator().manual_seed(2))
    return ByteArray(values=values, mask=mask, grid=grid, num_content_channels=3)


def dense_case(
    *output_shape: int, embedding_size: tuple[int, int] | None = None, **fields: Any
) -> DecoderCase:
    defaults = {"output_channels": 2, "num_bands": 2}
    mask = torch.tensor([[True, True, False, True, True, False], [True] * 6])
    return DecoderCase(
        decoder_class=DenseDecoder,
        config=DenseDecoder.Config(**defaults | fields),
        encoded=encoded(byte_arrays={"image": byte_array(2, 3), "text": byte_array(6, mask=mask)}),
        output_shape=output_shape,
        embedding_size=embedding_size,
    )


def next_token_case(*, embedding_size: tuple[int, int] | None = None, **fields: Any) -> DecoderCase:
    batch = encoded()
    return DecoderCase(
        decoder_class=NextTokenDecoder,
        config=NextTokenDecoder.Config(vocab_size=7, **fields),
        encoded=batch,
        output_shape=(batch.latents.shape[1], 7),
        embedding_size=embedding_size,
    )


# By the decoder's registered name, then by what is special about the case.
CASES: dict[str, dict[str, Callable[[], DecoderCase]]] = {
    "classification": {
        "defaults": lambda: classification_case(),
        "widths": lambda: classification_case(
            query_channels=4, num_heads=2, qk_channels=6, v_channels=10, widening_factor=2
        ),
        "published-learned": lambda: classification_case(use_query_residual=False, activation="gelu_tanh"),
    },
    "regression": {
        "defaults": lambda: regression_case(),
        "widths": lambda: regression_case(num_outputs=3, query_channels=4, num_heads=2, qk_channels=6),
    },
    "pooled-classification": {
        "defaults": lambda: pooled_case(),
        "published": lambda: pooled_case(use_layer_norm=False),
    },
    "next-token": {
        "defaults": lambda: next_token_case(),
        "without-norm-and-bias": lambda: next_token_case(use_layer_norm=False, bias=False),
        "tied": lambda: next_token_case(tied_to="text", embedding_size=(7, 8)),
        "tied-without-bias": lambda: next_token_case(tied_to="text", embedding_size=(7, 8), bias=False),
    },
    "dense": {
        "fourier": lambda: dense_case(2, 3, 4, grid=(3, 4)),
        "learned": lambda: dense_case(
            2, 6, grid=(6,), position="learned", position_channels=5, use_query_residual=True, num_heads=2
        ),
        "flow": lambda: dense_case(
            2, 2, 3, query_input="image", query_input_channels=3, max_resolution=(4, 4), scale=0.2
        ),
        "elements-alone": lambda: dense_case(
            2, 3, 2, query_input="image", query_input_channels=5, position="none", channel_axis=-1
        ),
        "positions-of-elements-projected": lambda: dense_case(
            2,
            3,
            2,
            query_input="image",
            query_input_channels=2,
            query_input_from="end",
            query_channels=6,
            position="none",
            channel_axis=-1,
        ),
        "patches": lambda: dense_case(
            4,
            3,
            6,
            4,
            output_channels=3,
            grid=(4, 2, 2),
            patch_size=(1, 3, 2),
            channel_axis=1,
            spacing="steps",
        ),
        "audio": lambda: dense_case(8, output_channels=1, grid=(2,), patch_size=(4,), channel_axis=None),
        "language": lambda: dense_case(
            6,
            7,
            output_channels=7,
            grid=(8,),
            grid_input="text",
            query_mask_input="text",
            tied_to="text",
            embedding_size=(7, 4),
            position="learned",
            position_channels=4,
            position_resize="truncate",
            channel_axis=-1,
            num_heads=2,
            qk_channels=6,
            v_channels=4,
        ),
    },
}


@pytest.mark.parametrize("check", DECODER_CHECKS.values(), ids=DECODER_CHECKS)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{decoder}-{name}")
        for decoder, cases in CASES.items()
        for name, case in cases.items()
    ],
)
def test_contract(case: Callable[[], DecoderCase], check: Callable[[DecoderCase], None]) -> None:
    check(case())


def test_every_registered_decoder_has_cases() -> None:
    # Plug-ins that happen to be installed or registered by other tests answer for themselves.
    ours = {name for name in DECODERS.names() if DECODERS.get(name).__module__.startswith("perceiver_io.")}
    assert ours == set(CASES)
    for name, cases in CASES.items():
        assert {case().decoder_class for case in cases.values()} == {DECODERS.get(name)}


def test_classification_is_one_query_then_a_linear_layer() -> None:
    decoder = ClassificationDecoder(ClassificationDecoder.Config(num_classes=5), PARTS)
    batch = encoded()
    query = decoder.query.weight.expand(2, 1, 8)
    expected = (
        decoder.cross_attend(query, batch.latents)[:, 0] @ decoder.output.weight.T + decoder.output.bias
    )
    torch.testing.assert_close(decoder(batch), expected)


@pytest.mark.parametrize("use_layer_norm", [False, True])
def test_pooled_is_the_mean_then_a_linear_layer(use_layer_norm: bool) -> None:
    config = PooledClassificationDecoder.Config(num_classes=5, use_layer_norm=use_layer_norm)
    decoder = PooledClassificationDecoder(config, PARTS)
    batch = encoded()
    mean = batch.latents.sum(dim=1) / 3
    if use_layer_norm:
        mean = (mean - mean.mean(-1, keepdim=True)) / (mean.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(decoder(batch), mean @ decoder.output.weight.T + decoder.output.bias)


@pytest.mark.parametrize("decoder", [ClassificationDecoder, PooledClassificationDecoder])
def test_fewer_than_two_classes_are_refused(decoder: Any) -> None:
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        decoder.Config(num_classes=1)


def test_no_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="num_heads must be at least 1, got 0"):
        ClassificationDecoder.Config(num_classes=2, num_heads=0)


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (torch.zeros(3, 8), r"got torch.float32 \(3, 8\)"),
        (torch.zeros(0, 3, 8), r"at least one sample, got torch.float32 \(0, 3, 8\)"),
        (torch.zeros(2, 3, 8, dtype=torch.int64), "must be floating point.*got torch.int64"),
        (torch.full((1, 2, 2), torch.nan), r"4 values that are NaN or infinite.*lower the learning rate"),
    ],
)
def test_encoded_refuses_latents_that_are_none(latents: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoded(latents=latents)


@pytest.mark.parametrize("decoder", [ClassificationDecoder, DenseDecoder])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"widening_factor": 0}, "widening_factor must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"attention_dropout": -0.1}, r"attention_dropout must be in \[0, 1\), got -0.1"),
    ],
)
def test_attention_settings_that_make_no_sense_are_refused(
    decoder: Any, fields: dict[str, Any], message: str
) -> None:
    needed = {"num_classes": 2} if decoder is ClassificationDecoder else {"output_channels": 2, "grid": (3,)}
    with pytest.raises(ValueError, match=message):
        decoder.Config(**needed | fields)


class SeesOtherQueries(DenseDecoder):
    def queries(self, encoded: Encoded, points: Points) -> torch.Tensor:
        queries = super().queries(encoded, points)
        return queries - queries.mean(dim=1, keepdim=True)


class CountsWrong(DenseDecoder):
    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> torch.Tensor:
        output = super().forward(encoded, request)
        return output if request.points is None else output[..., :1]


class TakesTheFirstSamplesPoints(DenseDecoder):
    def queries(self, encoded: Encoded, points: Points) -> torch.Tensor:
        if points.per_sample:
            points = dataclasses.replace(points, indices=points.indices[0])
        return super().queries(encoded, points)


class ForgetsTheSharedAttention(DenseDecoder):
    def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> torch.Tensor:
        output = super().forward(encoded, request)
        return output if request.attention is None else output.detach()


@pytest.mark.parametrize(
    ("decoder_class", "check", "message"),
    [
        (SeesOtherQueries, "points", "another one where it is decoded query by query"),
        (CountsWrong, "points", "not as many values as the whole output"),
        (TakesTheFirstSamplesPoints, "points", "Points of each sample's own are decoded otherwise"),
        (ForgetsTheSharedAttention, "shared_attention", "does not depend on any of the parameters"),
    ],
)
def test_broken_dense_decoders_fail(decoder_class: type[DenseDecoder], check: str, message: str) -> None:
    case = dataclasses.replace(dense_case(2, 3, 4, grid=(3, 4)), decoder_class=decoder_class)
    with pytest.raises(AssertionError, match=message):
        DECODER_CHECKS[check](case)


def test_a_vector_is_what_classification_gives_with_the_same_weights() -> None:
    """The logits of as many classes: only the names of the settings differ."""
    classes = ClassificationDecoder(ClassificationDecoder.Config(num_classes=3), PARTS)
    numbers = RegressionDecoder(RegressionDecoder.Config(num_outputs=3), PARTS)
    numbers.load_state_dict(classes.state_dict())
    assert torch.equal(numbers(encoded()), classes(encoded()))
    assert RegressionDecoder(RegressionDecoder.Config(), PARTS)(encoded()).shape == (2, 1)


def test_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"RegressionDecoder.Config.num_outputs must be at least 1, got 0"):
        RegressionDecoder.Config(num_outputs=0)


def test_a_class_is_still_saved_under_the_same_names() -> None:
    decoder = ClassificationDecoder(ClassificationDecoder.Config(num_classes=3), PARTS)
    assert {name.partition(".")[0] for name in decoder.state_dict()} == {"query", "cross_attend", "output"}


def test_what_decoders_need_of_others() -> None:
    assert DecoderConfig().needs() == DecoderNeeds()
    assert PooledClassificationDecoder.Config(num_classes=2).needs() == DecoderNeeds()
    assert ClassificationDecoder.Config(num_classes=2).needs() == DecoderNeeds(can_share_attention=True)
    needs = DenseDecoder.Config(
        output_channels=2,
        grid=(3, 4),
        grid_input="image",
        query_input="image",
        query_input_channels=3,
        query_mask_input="mask",
        tied_to="text",
    ).needs()
    assert needs == DecoderNeeds(
        embedding="text", elements={"image": 3}, inputs=("image", "mask"), can_share_attention=True
    )
    assert needs.names == {"image", "mask", "text"}


def test_a_decoder_takes_no_points_unless_it_says_so() -> None:
    class Plain(Decoder):
        def forward(self, encoded: Encoded, request: DecoderRequest = WHOLE_OUTPUT) -> torch.Tensor:
            return encoded.latents

    assert not Plain.takes_points
    assert Plain().num_query_channels is None
    with pytest.raises(ValueError, match="Plain takes no points: its output is decoded whole"):
        Plain().query_grid(encoded())
