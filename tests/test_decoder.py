"""Decoders: what they compute, and the contract suite over every registered one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from perceiver_io import ClassificationDecoder, Encoded, PooledClassificationDecoder
from perceiver_io.registry import DECODERS
from perceiver_io.testing import DECODER_CHECKS, DecoderCase


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


# By the decoder's registered name, then by what is special about the case.
CASES: dict[str, dict[str, Callable[[], DecoderCase]]] = {
    "classification": {
        "defaults": lambda: classification_case(),
        "widths": lambda: classification_case(
            query_channels=4, num_heads=2, qk_channels=6, v_channels=10, widening_factor=2
        ),
        "published-learned": lambda: classification_case(use_query_residual=False, activation="gelu_tanh"),
    },
    "pooled-classification": {
        "defaults": lambda: pooled_case(),
        "published": lambda: pooled_case(use_layer_norm=False),
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
    decoder = ClassificationDecoder(ClassificationDecoder.Config(num_classes=5), latent_channels=8)
    batch = encoded()
    query = decoder.query.weight.expand(2, 1, 8)
    expected = (
        decoder.cross_attend(query, batch.latents)[:, 0] @ decoder.output.weight.T + decoder.output.bias
    )
    torch.testing.assert_close(decoder(batch), expected)


@pytest.mark.parametrize("use_layer_norm", [False, True])
def test_pooled_is_the_mean_then_a_linear_layer(use_layer_norm: bool) -> None:
    config = PooledClassificationDecoder.Config(num_classes=5, use_layer_norm=use_layer_norm)
    decoder = PooledClassificationDecoder(config, latent_channels=8)
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
        ClassificationDecoder(ClassificationDecoder.Config(num_classes=2, num_heads=0), latent_channels=8)


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
