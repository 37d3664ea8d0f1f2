"""Texts to the ids of their bytes: the processor of text inputs.

Shape legend: B batch, T tokens.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from perceiver_io.component import ComponentConfig
from perceiver_io.input_tools import check_positive
from perceiver_io.media.source import Source
from perceiver_io.media.texts import read_text
from perceiver_io.ragged import pad_ragged
from perceiver_io.registry import register_processor

if TYPE_CHECKING:
    from transformers import PerceiverTokenizer, PreTrainedTokenizerBase

__all__ = ["ByteTextProcessor"]

# As in the published vocabulary, where bytes follow six special tokens.
_CLS, _SEP, _FIRST_BYTE = 4, 5, 6
# What a saved tokenizer says besides, for `of_tokenizer`.
_SPECIAL_TOKENS = "with_special_tokens"


@register_processor("text")
@dataclass(frozen=True, kw_only=True)
class ByteTextProcessor(ComponentConfig):
    """Turns texts into the ids of their UTF-8 bytes, in the vocabulary of the published model.

    These are the ids of `transformers.PerceiverTokenizer`, but what looks like a special token, such as "[MASK]" in a
    text, is bytes like any other. A longer text keeps its first bytes, and its [SEP].

    Attributes:
        max_length: The most tokens that a text gets, special ones included.
        special_tokens: Whether a text stands between [CLS] and [SEP].
    """

    max_length: int = 2048
    special_tokens: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "max_length")
        if self.num_bytes < 1:
            raise ValueError(
                f"ByteTextProcessor.max_length is {self.max_length}, expected 3 or more: [CLS] and [SEP] are counted."
            )

    @property
    def num_bytes(self) -> int:
        """The most bytes of a text that are kept."""
        return self.max_length - 2 * self.special_tokens

    @cached_property
    def tokenizer(self) -> PerceiverTokenizer:
        """The tokenizer that gives the same ids, to be saved beside a model.

        Without special tokens, it does so when called with ``add_special_tokens=False``.
        """
        from transformers import PerceiverTokenizer

        return PerceiverTokenizer(
            model_max_length=self.max_length,
            split_special_tokens=True,
            **{_SPECIAL_TOKENS: self.special_tokens},
        )

    @classmethod
    def of_tokenizer(cls, tokenizer: PreTrainedTokenizerBase) -> ByteTextProcessor:
        """Returns the processor that gives the ids of a tokenizer, such as the one that was saved beside a model.

        Raises:
            ValueError: It is no tokenizer of bytes.
        """
        from transformers import PerceiverTokenizer

        if not isinstance(tokenizer, PerceiverTokenizer):
            raise ValueError(
                f"Got a {type(tokenizer).__name__}, expected a PerceiverTokenizer: the ids of its bytes."
            )
        special_tokens = bool(tokenizer.init_kwargs.get(_SPECIAL_TOKENS, True))
        return cls(max_length=tokenizer.model_max_length, special_tokens=special_tokens)

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Writes the tokenizer, which pipelines of `transformers` find, into a folder."""
        self.tokenizer.save_pretrained(save_directory)

    def prepare(self, value: str | Source) -> Tensor:
        """Returns the ids of a text.

        Args:
            value: A text; or a file of one: a `pathlib.Path`, bytes, or a mapping of `path` and `bytes`.

        Returns:
            (T,) int64.

        Raises:
            ValueError: It is no text, empty, or not UTF-8.
        """
        if isinstance(value, (bytes, Mapping, os.PathLike)):
            value = read_text(value)
        if not isinstance(value, str):
            raise ValueError(f"Got {type(value).__name__}, expected a text, or the path or the bytes of one.")
        if not value:
            raise ValueError("The text is empty, expected one character or more. Leave it out.")
        try:
            content = value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"The text has no UTF-8 form: character {error.start} is half of a surrogate pair."
            ) from error
        ids = (
            torch.from_numpy(np.frombuffer(content[: self.num_bytes], np.uint8).astype(np.int64))
            + _FIRST_BYTE
        )
        if not self.special_tokens:
            return ids
        return torch.cat([torch.tensor([_CLS]), ids, torch.tensor([_SEP])])

    def collate(self, samples: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """Makes a batch (B, T) of samples, padded with [PAD], and its mask (B, T)."""
        return pad_ragged(samples)
