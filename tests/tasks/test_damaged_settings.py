"""Files beside a model that are damaged, or made to do harm: an error that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from perceiver_io.running.find_task import get_task

NO_OBJECTS = [b"null", b"3", b"[]", b'"x"', b"{", b"", b"\xff\xfe\x00", b"[" * 5000]
TOKENIZER = "masked-language-modeling"
FILES = {
    "tokenizer_config.json": TOKENIZER,
    "special_tokens_map.json": TOKENIZER,
    "added_tokens.json": TOKENIZER,
    "preprocessor_config.json": "image-classification",
    "processor_config.json": "image-classification",
}


@pytest.mark.parametrize("content", NO_OBJECTS, ids=lambda content: repr(content[:9]))
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_object_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    for other in ("tokenizer_config.json", "preprocessor_config.json"):
        (tmp_path / other).write_text("{}")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"The {name} of .* is damaged: "):
        get_task(FILES[name]).load_processor(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        '{"added_tokens_decoder": 3}',
        '{"added_tokens_decoder": {"a": {}}}',
        '{"pad_token": 3}',
        '{"extra_special_tokens": 3}',
        '{"model_max_length": "x"}',
    ],
)
def test_values_that_no_tokenizer_has(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"The tokenizer_config\.json of .* is damaged"):
        get_task(TOKENIZER).load_processor(tmp_path)
