"""Texts to ids: as the published tokenizer gives them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PerceiverTokenizer

from perceiver_io.adapters.text_processor import ByteTextProcessor

TEXTS = ["a", "Grüße, 世界 🙂", "x" * 30, " two  spaces\r\n"]


@pytest.mark.parametrize("special_tokens", [True, False])
@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_the_published_tokenizer(text: str, special_tokens: bool) -> None:
    processor = ByteTextProcessor(max_length=12, special_tokens=special_tokens)
    theirs = PerceiverTokenizer()(
        text, truncation=True, max_length=12, add_special_tokens=special_tokens, return_tensors="pt"
    )
    torch.testing.assert_close(processor.prepare(text)[None], theirs["input_ids"])
    assert processor.prepare(text).dtype == torch.int64


def test_names_of_special_tokens_are_bytes_also_after_saving(tmp_path: Path) -> None:
    processor = ByteTextProcessor()
    text = "[MASK] and [PAD]"
    processor.tokenizer.save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    ids = processor.prepare(text).tolist()
    assert ids == saved(text)["input_ids"] == processor.tokenizer(text)["input_ids"]
    assert len(ids) == len(text) + 2


def test_files_and_bytes_are_texts_too(tmp_path: Path) -> None:
    processor = ByteTextProcessor()
    path = tmp_path / "a.txt"
    path.write_text(TEXTS[1], encoding="utf-8")
    for value in (path, path.read_bytes(), {"path": str(path), "bytes": None}):
        assert torch.equal(processor.prepare(value), processor.prepare(TEXTS[1]))
    with pytest.raises(ValueError, match="not UTF-8 at byte 1"):
        processor.prepare(b"a\xff")


def test_batches_are_padded_as_the_tokenizer_pads_them() -> None:
    processor = ByteTextProcessor()
    ids, mask = processor.collate([processor.prepare("abc"), None, processor.prepare("a")])
    theirs = processor.tokenizer(["abc", "a"], padding=True, return_tensors="pt")
    assert mask is not None
    assert torch.equal(ids[[0, 2]], theirs["input_ids"])
    assert torch.equal(mask[[0, 2]], theirs["attention_mask"].bool())
    assert not mask[1].any()


def test_settings_are_saved_and_strict() -> None:
    processor = ByteTextProcessor(max_length=9, special_tokens=False)
    assert ByteTextProcessor.from_dict(processor.to_dict()) == processor
    with pytest.raises(ValueError, match="unknown keys"):
        ByteTextProcessor.from_dict({"length": 3})
    with pytest.raises(ValueError, match="expected 3 or more"):
        ByteTextProcessor(max_length=2)


@pytest.mark.parametrize(
    ("value", "message"),
    [("", "empty"), (3, "expected a text"), (None, "expected a text"), ("\ud800", "surrogate")],
)
def test_what_is_no_text_is_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ByteTextProcessor().prepare(value)  # type: ignore[arg-type]
