from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import ByT5Tokenizer, PerceiverTokenizer

from perceiver_io.tasks import masked_language_modeling as mlm

MASK, FIRST = 3, 6
SENTENCE = "This is an incomplete sentence where some words are missing."


@pytest.fixture
def model() -> mlm.PerceiverIOForMaskedLM:
    config = mlm.config(variant="tiny", max_length=80, text={"num_channels": 16}, encoder={"num_latents": 4})
    return mlm.PerceiverIOForMaskedLM(config).eval()


@pytest.fixture
def oracle(
    model: mlm.PerceiverIOForMaskedLM, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], mlm.PerceiverIOForMaskedLM]:
    """A model that knows the text, and is asked about it between [CLS] and [SEP]."""

    def of(text: str) -> mlm.PerceiverIOForMaskedLM:
        tokens = torch.tensor(PerceiverTokenizer()(text)["input_ids"])

        def logits_at(input_ids: Tensor, positions: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            known = input_ids[0] != MASK
            assert torch.equal(input_ids[0][known], tokens[known])
            return torch.nn.functional.one_hot(tokens[positions], 262)[None] * 20.0

        monkeypatch.setattr(model, "logits_at", logits_at)
        return model

    return of


def test_the_published_example(oracle: Callable[[str], mlm.PerceiverIOForMaskedLM]) -> None:
    fill = mlm.FillMaskPipeline(oracle(SENTENCE))
    by_range = fill(SENTENCE, mask=(51, 60))
    assert by_range.text == SENTENCE and by_range.fills == (" missing.",)
    assert [one.position for one in by_range.masked] == list(range(51, 60))
    assert fill(SENTENCE[:51] + "[MASK]" * 9) == by_range


def test_the_tokens_are_those_of_the_tokenizer(
    model: mlm.PerceiverIOForMaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Tensor] = {}

    def logits_at(input_ids: Tensor, positions: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        seen.update(ids=input_ids, positions=positions)
        return torch.zeros(len(input_ids), len(positions), 262)

    monkeypatch.setattr(model, "logits_at", logits_at)
    text = "Grüße [MASK]aus[MASK][MASK] Zürich 🙂"
    expected = PerceiverTokenizer()(text, return_tensors="pt")["input_ids"]
    mlm.FillMaskPipeline(model)(text)
    assert torch.equal(seen["ids"], expected)
    assert torch.equal(seen["positions"], (expected[0] == MASK).nonzero().flatten())
    mlm.FillMaskPipeline(model, add_special_tokens=False)(text)
    assert torch.equal(seen["ids"], expected[:, 1:-1])


def test_other_special_tokens_in_a_text_are_letters(model: mlm.PerceiverIOForMaskedLM) -> None:
    filled = mlm.FillMaskPipeline(model)("[PAD] or [SEP]? [MASK]")
    assert filled.text.startswith("[PAD] or [SEP]? ") and len(filled.text) == 17


@pytest.mark.parametrize(
    ("text", "mask", "fills"),
    [
        ("über uns", (0, 1), ("ü",)),
        ("a€🙂b", (1, 3), ("€🙂",)),
        ("a€🙂b", [(2, 3), (0, 1)], ("a", "🙂")),
        ("abcdef", [(0, 2), (2, 3), (5, 6)], ("abc", "f")),
        ("日本語", (0, 3), ("日本語",)),
    ],
)
def test_characters_of_several_bytes(
    oracle: Callable[[str], mlm.PerceiverIOForMaskedLM], text: str, mask: Any, fills: tuple[str, ...]
) -> None:
    filled = mlm.FillMaskPipeline(oracle(text))(text, mask=mask)
    assert filled.text == text and filled.fills == fills
    assert len(filled.masked) == len("".join(fills).encode())


def test_what_is_filled_in_is_whole_characters(
    model: mlm.PerceiverIOForMaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.full((1, 2, 262), -20.0)
    logits[0, 0, FIRST + 0xC3], logits[0, 0, FIRST + ord("a")] = 3.0, 2.0
    logits[0, 1, FIRST + ord("z")], logits[0, 1, FIRST + 0xA9] = 1.5, 0.0
    logits[0, 1, MASK] = 4.0  # special tokens are never filled in
    monkeypatch.setattr(model, "logits_at", lambda *args: logits)
    filled = mlm.FillMaskPipeline(model, top_k=2)("[MASK][MASK]")
    # "é" has 3 + 0, "az" 2 + 1.5; the best bytes alone, C3 and z, are no text.
    assert filled.text == "az" and filled.fills == ("az",)
    first, second = filled.masked
    assert [one.byte for one in first.candidates] == [0xC3, ord("a")]
    assert [one.text for one in first.candidates] == ["\\xc3", "a"]
    assert first.filled == first.candidates[1] and second.filled == second.candidates[0]
    probabilities = logits[0].softmax(-1)
    assert first.filled.probability == pytest.approx(probabilities[0, FIRST + ord("a")].item())
    assert second.filled.probability == pytest.approx(probabilities[1, FIRST + ord("z")].item())
    assert json.loads(json.dumps(filled.to_dict()))["masked"][0]["candidates"][0]["byte"] == 0xC3


def test_batches_give_what_texts_alone_give(model: mlm.PerceiverIOForMaskedLM) -> None:
    texts = ["a[MASK]c", "[MASK] longer text [MASK][MASK]", "", "x[MASK]"]
    texts[2] = "[MASK]"
    alone = [mlm.FillMaskPipeline(model)(text) for text in texts]
    for batch_size in (1, 3, 8):
        together = mlm.FillMaskPipeline(model, batch_size=batch_size)(texts)
        for one, other in zip(together, alone, strict=True):
            assert (one.text, one.fills) == (other.text, other.fills)
            for first, second in zip(one.masked, other.masked, strict=True):
                assert first.position == second.position
                assert first.filled.probability == pytest.approx(second.filled.probability, rel=1e-4)
    assert mlm.FillMaskPipeline(model)([]) == []


def test_probabilities_are_those_of_the_model_padded_to_its_length(model: mlm.PerceiverIOForMaskedLM) -> None:
    """As the published model is used: the text is padded to the model's length, with a mask."""
    text = "some [MASK]ords"
    batch = PerceiverTokenizer()(text, padding="max_length", max_length=80, return_tensors="pt")
    with torch.no_grad():
        probabilities = model(**batch).logits.softmax(-1)[0]
    (masked,) = mlm.FillMaskPipeline(model, top_k=256)(text).masked
    assert masked.position == 5 and len(masked.candidates) == 256
    for one in masked.candidates:
        assert one.probability == pytest.approx(probabilities[6, FIRST + one.byte].item(), rel=1e-4)
    assert [one.probability for one in masked.candidates] == sorted(
        (one.probability for one in masked.candidates), reverse=True
    )


def test_the_longest_text(model: mlm.PerceiverIOForMaskedLM) -> None:
    fill = mlm.FillMaskPipeline(model)
    assert len(fill("a" * 77 + "[MASK]").text) == 78
    with pytest.raises(ValueError, match=r"has 81 tokens with \[CLS\] and \[SEP\], the model takes 80"):
        fill("a" * 78 + "[MASK]")
    with pytest.raises(ValueError, match="has 81 tokens"):
        fill(["[MASK]", "é" * 39 + "[MASK]"])
    assert mlm.FillMaskPipeline(model, add_special_tokens=False)("a" * 79 + "[MASK]")


@pytest.mark.parametrize(
    ("text", "mask", "message"),
    [
        ("nothing", None, "Nothing is masked in 'nothing'"),
        (["[MASK]", "nothing"], None, "Nothing is masked in 'nothing'"),
        ("", None, "Nothing is masked"),
        (["[MASK]"], (0, 1), "one text"),
        ("a[MASK]", (0, 1), "choose one"),
        ("abc", (0, 0), r"\(0, 0\)"),
        ("abc", (2, 1), r"\(2, 1\)"),
        ("abc", (1, 4), r"\(1, 4\).*3 characters"),
        ("abc", (-2, 3), r"\(-2, 3\)"),
        ("abc", [(0, 2), (1, 3)], r"overlaps"),
        ("abc", [(0, 1, 2)], r"\(0, 1, 2\)"),
        ("abc", [], "no ranges"),
        (["a[MASK]", 3], None, "must be a string, got int"),
    ],
)
def test_bad_input(model: mlm.PerceiverIOForMaskedLM, text: Any, mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mlm.FillMaskPipeline(model)(text, mask=mask)


def test_bad_options(model: mlm.PerceiverIOForMaskedLM) -> None:
    for options, message in (
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": 257}, "top_k is 257"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"tokenizer": ByT5Tokenizer()}, "ByT5Tokenizer"),
    ):
        with pytest.raises(ValueError, match=message):
            mlm.FillMaskPipeline(model, **options)
    larger = mlm.PerceiverIOForMaskedLM(mlm.config(variant="tiny", text={"vocab_size": 300}))
    with pytest.raises(ValueError, match="The tokenizer has 262 tokens, the model 300"):
        mlm.FillMaskPipeline(larger)


def test_damaged_weights_are_noticed(model: mlm.PerceiverIOForMaskedLM) -> None:
    with torch.no_grad():
        model.perceiver.decoders["text"].output.bias[7] = float("nan")
    with pytest.raises(ValueError, match="damaged"):
        mlm.FillMaskPipeline(model)("[MASK]")
