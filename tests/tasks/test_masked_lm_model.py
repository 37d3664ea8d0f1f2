from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM

import perceiver_io as pio
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.tasks import masked_language_modeling as mlm

IDS = torch.randint(6, 262, (2, 10), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> mlm.PerceiverIOForMaskedLM:
    torch.manual_seed(0)
    return mlm.PerceiverIOForMaskedLM(mlm.config(variant="tiny", max_length=16)).eval()


def test_the_published_model_has_its_published_size() -> None:
    with torch.device("meta"):
        model = mlm.PerceiverIOForMaskedLM(mlm.config(variant="language"))
    assert model.num_parameters() == 201_108_230
    assert (model.vocab_size, model.max_length) == (262, 2048)


def test_the_sizes_of_the_decoder_follow_the_adapters() -> None:
    config = mlm.config(variant="tiny", text={"vocab_size": 30, "max_length": 7, "num_channels": 24})
    model = mlm.PerceiverIOForMaskedLM(config)
    assert model(torch.zeros(1, 7, dtype=torch.int64)).logits.shape == (1, 7, 30)
    config = mlm.config(
        variant="tiny", max_length=9, encoder={"num_latents": 3}, decoder={"widening_factor": 2}
    )
    assert config.inputs["text"].max_length == 9 and config.encoder.num_latents == 3
    assert config.outputs["text"].widening_factor == 2


@pytest.mark.parametrize("length", [1, 10, 16])
def test_a_logit_for_each_token_of_texts_of_any_length(
    model: mlm.PerceiverIOForMaskedLM, length: int
) -> None:
    logits = model(torch.zeros(2, length, dtype=torch.int64)).logits
    assert logits.shape == (2, length, 262) and logits.isfinite().all()


@torch.no_grad()
def test_masked_padding_changes_nothing(model: mlm.PerceiverIOForMaskedLM) -> None:
    alone = model(IDS).logits
    for filler in (0, 77):
        padded = torch.nn.functional.pad(IDS, (0, 6), value=filler)
        mask = torch.arange(16).expand(2, -1) < 10
        for attention_mask in (mask, mask.long(), mask.int()):
            logits = model(padded, attention_mask).logits
            torch.testing.assert_close(logits[:, :10], alone, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(model(padded).logits[:, :10], alone, atol=1e-4)


@torch.no_grad()
def test_some_positions_are_as_among_all(model: mlm.PerceiverIOForMaskedLM) -> None:
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[1, 7:] = False
    positions = torch.tensor([3, 9, 0])
    for attention_mask in (None, mask):
        torch.testing.assert_close(
            model.logits_at(IDS, positions, attention_mask),
            model(IDS, attention_mask).logits[:, positions],
            rtol=1e-5,
            atol=1e-6,
        )
    with pytest.raises(ValueError, match="10"):
        model.logits_at(IDS, torch.tensor([10]))


def test_the_loss_is_the_mean_over_the_positions_that_count(model: mlm.PerceiverIOForMaskedLM) -> None:
    labels = IDS.clone()
    labels[0, 3:] = -100
    output = model(IDS, labels=labels)
    probabilities = output.logits.double().softmax(-1)
    losses = [
        -probabilities[row, place, labels[row, place]].log()
        for row, place in (labels >= 0).nonzero().tolist()
    ]
    assert len(losses) == 13
    assert output.loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def published_like() -> pio.PerceiverIOConfig:
    """The published configuration, but for its sizes."""
    return mlm.config(
        variant="language",
        text={"max_length": 16, "num_channels": 32},
        encoder={
            "num_latents": 5,
            "latent_channels": 40,
            "num_self_attends_per_block": 2,
            "cross_attention_qk_channels": 16,
            "cross_attention_v_channels": 40,
            "self_attention_qk_channels": 16,
            "self_attention_v_channels": 40,
        },
        decoder={"qk_channels": 16, "v_channels": 32},
    )


MODELS = {
    "published-like": published_like,
    "tiny": lambda: mlm.config(variant="tiny", max_length=16),
    "small": lambda: mlm.config(variant="small", max_length=16),
}
# Places in any order, twice, the first and the last; each sample its own.
POSITIONS = torch.tensor([[3, 0, 6, 3], [9, 8, 0, 1]])
PADDED = torch.ones(2, 10, dtype=torch.bool)
PADDED[0, 7:] = False


@pytest.mark.parametrize("attention_mask", [None, PADDED], ids=["whole", "padded"])
@pytest.mark.parametrize("name", MODELS)
def test_positions_are_as_among_all(name: str, attention_mask: torch.Tensor | None) -> None:
    model = mlm.PerceiverIOForMaskedLM(MODELS[name]()).eval()
    labels = IDS.gather(1, POSITIONS)
    labels[1, 2] = -100
    some = model(IDS, attention_mask, labels, POSITIONS)
    whole = model(IDS, attention_mask)
    expected = torch.stack([whole.logits[row, POSITIONS[row]] for row in range(2)])
    torch.testing.assert_close(some.logits, expected, rtol=1e-5, atol=1e-6)
    losses = [
        -expected[row, place].double().softmax(-1)[labels[row, place]].log()
        for row, place in (labels != -100).nonzero().tolist()
    ]
    assert len(losses) == 7
    torch.testing.assert_close(some.loss.double(), torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_positions_are_as_among_all(name: str) -> None:
    model = mlm.PerceiverIOForMaskedLM(MODELS[name]()).eval()
    positions = torch.tensor([[2, 5], [9, 0]])
    labels = IDS.gather(1, positions)
    among_all = torch.full_like(IDS, -100).scatter(1, positions, labels)
    parameters = list(model.parameters())
    some = torch.autograd.grad(model(IDS, PADDED, labels, positions).loss, parameters)
    whole = torch.autograd.grad(model(IDS, PADDED, among_all).loss, parameters)
    for one, other in zip(some, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_text_alone_is_as_in_a_padded_batch(name: str) -> None:
    model = mlm.PerceiverIOForMaskedLM(MODELS[name]()).eval()
    both = model(IDS, PADDED).logits
    torch.testing.assert_close(model(IDS[:1, :7]).logits, both[:1, :7], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model(IDS[1:]).logits, both[1:], rtol=1e-5, atol=1e-5)


def test_no_position_that_counts_gives_no_loss_and_no_gradient(model: mlm.PerceiverIOForMaskedLM) -> None:
    loss = model(IDS, labels=torch.full_like(IDS, -100)).loss
    assert loss.item() == 0
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    assert all(one is None or not one.any() for one in gradients)


def test_every_parameter_is_trained(model: mlm.PerceiverIOForMaskedLM) -> None:
    loss = model(torch.nn.functional.pad(IDS, (0, 6)), labels=torch.nn.functional.pad(IDS, (0, 6))).loss
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert all(one.isfinite().all() and one.any() for one in gradients)


@torch.no_grad()
def test_save_and_load(model: mlm.PerceiverIOForMaskedLM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    for load in (pio.from_pretrained, AutoModelForMaskedLM.from_pretrained):
        twin = load(tmp_path).eval()
        assert type(twin) is mlm.PerceiverIOForMaskedLM
        assert torch.equal(twin(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": IDS[0]}, "batch"),
        ({"input_ids": IDS.float()}, "int"),
        ({"input_ids": IDS[:, :0]}, "empty|tokens"),
        ({"input_ids": IDS + 100}, "from 0 to 261"),
        ({"input_ids": torch.zeros(1, 17, dtype=torch.int64)}, "17 tokens is longer than the model's 16"),
        ({"attention_mask": torch.ones(2, 10)}, "attention_mask must be bool or integer, got torch.float32"),
        ({"attention_mask": [[1] * 10] * 2}, "attention_mask must be bool or integer, got list"),
        ({"attention_mask": torch.ones(2, 9, dtype=torch.bool)}, r"\(2, 10\), got \(2, 9\)"),
        ({"attention_mask": torch.zeros(2, 10, dtype=torch.bool)}, "masked"),
        ({"labels": IDS[:, :9]}, r"\(2, 10\), got torch.int64 \(2, 9\)"),
        ({"labels": IDS.int()}, "int32"),
        ({"labels": "text"}, "str"),
        ({"labels": IDS + 6}, "token ids 0 to 261"),
        ({"labels": IDS - 200}, "or -100"),
        ({"positions": POSITIONS[0]}, r"positions must be int64 \(2, positions\), got torch.int64 \(4,\)"),
        ({"positions": POSITIONS[..., None]}, r"positions must be .*, got torch.int64 \(2, 4, 1\)"),
        ({"positions": POSITIONS[:1]}, r"positions must be .*, got torch.int64 \(1, 4\)"),
        ({"positions": [[1], [2]]}, "positions must be .*, got list"),
        ({"positions": POSITIONS[:, :0]}, "must be at least one, got none"),
        ({"positions": POSITIONS > 1}, "positions must be .*, got torch.bool"),
        (
            {"attention_mask": torch.full((2, 10), 2)},
            "attention_mask must be 1 where something is real and 0 elsewhere, got 2",
        ),
        ({"positions": torch.zeros(2, 1)}, "positions must be .*, got torch.float32"),
        ({"positions": POSITIONS + 1}, "from 0 to .*9.*, got 1 to 10"),
        ({"positions": POSITIONS - 1}, "got -1 to 8"),
        (
            {"positions": POSITIONS, "labels": IDS},
            r"labels must be int64 token ids \(2, 4\), got .* \(2, 10\)",
        ),
    ],
)
def test_bad_input(model: mlm.PerceiverIOForMaskedLM, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**({"input_ids": IDS} | arguments))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "huge"}, "no variant 'huge' of the masked language model. Known: tiny, small, language"),
        ({"text": {"nonsense": 1}}, "nonsense"),
        ({"decoder": {"nonsense": 1}}, "nonsense"),
        ({"encoder": {"num_latents": 0}}, "num_latents"),
        ({"max_length": 0}, "max_length"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mlm.config(**options)


def test_configurations_of_other_models_are_refused() -> None:
    good = mlm.config(variant="tiny")
    adapter, decoder, encoder = good.inputs["text"], good.outputs["text"], good.encoder
    untied = DenseDecoder.Config(output_channels=5, grid=(8,), channel_axis=-1)
    label = pio.ClassificationDecoder.Config(num_classes=2)
    for inputs, outputs, message in (
        ({"text": adapter, "more": TextAdapter.Config()}, {"text": decoder}, "more"),
        ({"text": adapter}, {"label": label}, "label"),
        ({"text": adapter}, {"text": untied}, "262 tokens needs as many output_channels, got 5"),
        ({"text": adapter}, {"text": label}, "output_channels, got None"),
    ):
        with pytest.raises(ValueError, match=message):
            mlm.PerceiverIOForMaskedLM(pio.PerceiverIOConfig(inputs=inputs, encoder=encoder, outputs=outputs))
