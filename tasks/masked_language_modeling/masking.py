"""Bytes hidden for training, and the batches that ask for nothing but them.

Shape legend: B batch, T tokens, O hidden positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PerceiverTokenizer

from perceiver_io.tasks.masked_language_modeling.model import IGNORED

__all__ = ["MaskingCollator", "word_starts"]

_SPACES = np.frombuffer(b" \t\n\r\v\f", np.uint8)


class MaskingCollator:
    """Hides a share of the bytes of texts (Perceiver IO, section 4.1).

    Every hidden byte becomes the mask token. All random numbers are of PyTorch's global generator.

    Args:
        tokenizer: Its special tokens; each byte is one token. A text stands between [CLS] and [SEP].
        probability: Share of a text's bytes that are hidden; at least one is.
        length: Bytes that are kept of a longer text, from a random place on; all if None.
        whole_words: Hide words, with the space before them, instead of single bytes, until the share is reached.
    """

    def __init__(
        self,
        tokenizer: PerceiverTokenizer,
        *,
        probability: float = 0.15,
        length: int | None = None,
        whole_words: bool = False,
    ) -> None:
        self.first_byte = int(tokenizer.convert_tokens_to_ids(chr(0)))  # type: ignore[arg-type]
        self.special: dict[str, Any] = {
            "mask": tokenizer.mask_token_id,
            "pad": tokenizer.pad_token_id,
            "cls": tokenizer.cls_token_id,
            "sep": tokenizer.sep_token_id,
        }
        self.probability = probability
        self.length = length
        self.whole_words = whole_words

    def __call__(self, rows: Sequence[NDArray[np.uint8]]) -> dict[str, torch.Tensor]:
        """Makes a batch.

        Args:
            rows: Texts, as bytes.

        Returns:
            ``input_ids`` (B, T), padded to the longest text; ``attention_mask`` (B, T) bool where there is padding;
            ``positions`` (B, O), of the hidden bytes; ``labels`` (B, O), what stands there, -100 where a text has
            fewer.
        """
        rows = [self._cut(row) for row in rows]
        longest = max(map(len, rows)) + 2
        ids_BT = torch.full((len(rows), longest), self.special["pad"])
        hidden = [self._hidden(row) for row in rows]
        most = max(map(len, hidden))
        positions_BO = torch.zeros(len(rows), most, dtype=torch.int64)
        labels_BO = torch.full((len(rows), most), IGNORED)
        for row, (text, places) in enumerate(zip(rows, hidden, strict=True)):
            tokens = torch.from_numpy(text.astype(np.int64)) + self.first_byte
            ids_BT[row, 0], ids_BT[row, len(text) + 1] = self.special["cls"], self.special["sep"]
            ids_BT[row, 1 : len(text) + 1] = tokens
            positions_BO[row, : len(places)] = places + 1
            labels_BO[row, : len(places)] = tokens[places]
            ids_BT[row, places + 1] = self.special["mask"]
        batch = {"input_ids": ids_BT, "positions": positions_BO, "labels": labels_BO}
        if len({len(text) for text in rows}) > 1:
            lengths_B1 = torch.tensor([[len(text) + 2] for text in rows])
            batch["attention_mask"] = torch.arange(longest) < lengths_B1
        return batch

    def _cut(self, text: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.length is None or len(text) <= self.length:
            return text
        start = int(torch.randint(len(text) - self.length + 1, ()))
        return text[start : start + self.length]

    def _hidden(self, text: NDArray[np.uint8]) -> torch.Tensor:
        """Returns the places of the bytes to hide, in order."""
        wanted = max(1, round(self.probability * len(text)))
        if not self.whole_words:
            return torch.randperm(len(text))[:wanted].sort().values
        starts = word_starts(text)
        edges = [*starts.tolist(), len(text)]
        chosen: list[torch.Tensor] = []
        for word in torch.randperm(len(starts)).tolist():
            if wanted <= 0:
                break
            chosen.append(torch.arange(edges[word], edges[word + 1]))
            wanted -= len(chosen[-1])
        return torch.cat(chosen).sort().values


def word_starts(text: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Returns where the words of a text begin: each with the white space before it.

    White space at the end belongs to the last word.

    Args:
        text: Bytes, at least one.
    """
    space = np.isin(text, _SPACES)
    begins = space & ~np.concatenate([[True], space[:-1]])
    ends_in_space = np.flatnonzero(~space)
    if len(ends_in_space):
        begins[ends_in_space[-1] + 1 :] = False
    return np.concatenate([[0], np.flatnonzero(begins)]).astype(np.int64)
