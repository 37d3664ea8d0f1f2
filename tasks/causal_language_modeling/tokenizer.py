"""A tokenizer of UTF-8 bytes that generation can stream, with the ids of `transformers.PerceiverTokenizer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from perceiver_io.settings_files import reading_settings

__all__ = ["byte_tokenizer", "encoder_of", "load_tokenizer"]

_SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[MASK]", "[CLS]", "[SEP]")
_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json")


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Returns the tokenizer: 6 special tokens, then the 256 bytes. It pads on the left, as generation wants it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: index for index, token in enumerate(_SPECIAL)}
    vocabulary |= {character: len(_SPECIAL) + byte for byte, character in enumerate(_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        padding_side="left",
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )


def encoder_of(tokenizer: PreTrainedTokenizerBase) -> Callable[[bytes], NDArray[Any]]:
    """Returns what makes ids of a document's UTF-8 bytes.

    Before and after them stand the tokens for the beginning and the end of a text, where the tokenizer has such.
    """
    first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    last = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    width = np.uint16 if len(tokenizer) < 2**16 else np.int32
    is_bytes = tokenizer.get_vocab() == _byte_vocabulary()

    def encode(document: bytes) -> NDArray[Any]:
        ids: Sequence[int] | NDArray[Any]
        if is_bytes:
            ids = np.frombuffer(document, np.uint8).astype(width) + len(_SPECIAL)
        else:
            ids = tokenizer(document.decode(), add_special_tokens=False, verbose=False)["input_ids"]
        return np.concatenate([np.asarray(part, width) for part in (first, ids, last)])

    return encode


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Loads a tokenizer of `transformers`, such as the one beside a model; that of bytes where a folder has none.

    Raises:
        ValueError: It is damaged, or there is none of this name.
    """
    if Path(source).is_dir() and not any(Path(source, name).is_file() for name in _FILES):
        return byte_tokenizer()
    with reading_settings(source, *_FILES):
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
            tokenizer("a")  # settings of wrong types fail where they are used
        except OSError as error:
            raise ValueError(
                f"There is no tokenizer {str(source)!r}: {error} Give a folder that a tokenizer was saved to, or a hub "
                "id."
            ) from error
    if tokenizer.pad_token is None:  # only to fill up batches, where it is masked
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.convert_ids_to_tokens(0)
    tokenizer.padding_side = "left"
    return tokenizer


@cache
def _characters() -> tuple[str, ...]:
    """What stands for each byte in the vocabulary of byte-level tokenizers: itself where it can be printed."""
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return tuple(chr(byte) if byte in printed else chr(next(others)) for byte in range(256))


@cache
def _byte_vocabulary() -> dict[str, int]:
    return byte_tokenizer().get_vocab()
