"""Fills masked bytes of texts in.

Shape legend: B batch, T tokens, O masked positions, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from transformers import PerceiverTokenizer

from perceiver_io.tasks.masked_language_modeling.model import PerceiverIOForMaskedLM
from perceiver_io.tasks.masked_language_modeling.utf8 import most_probable_text

__all__ = ["ByteGuess", "FillMaskPipeline", "FilledText", "MaskedByte"]

Span = tuple[int, int]

_NUM_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class ByteGuess:
    r"""One value that a masked byte may have.

    Attributes:
        byte: The value, 0 to 255.
        text: The character, if it is a printable one of ASCII; else the value as in "\xc3".
        probability: As the model gives it, special tokens counted in.
    """

    byte: int
    text: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class MaskedByte:
    """One masked byte.

    Attributes:
        position: Where it is among the bytes of the text, from 0.
        filled: What was filled in.
        candidates: The most probable values, the best first. What was filled in need not be the first of them: only
            whole characters are.
    """

    position: int
    filled: ByteGuess
    candidates: tuple[ByteGuess, ...]


@dataclass(frozen=True, kw_only=True)
class FilledText:
    """A text with its masked bytes filled in.

    Attributes:
        text: The whole text.
        fills: What was filled in, for each run of masked bytes.
        masked: Each masked byte, in order.
    """

    text: str
    fills: tuple[str, ...]
    masked: tuple[MaskedByte, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        masked = [
            {**asdict(one), "candidates": [asdict(guess) for guess in one.candidates]} for one in self.masked
        ]
        return {"text": self.text, "fills": list(self.fills), "masked": masked}


class FillMaskPipeline:
    """Fills the masked bytes of texts in.

    A `[MASK]` in a text stands for one masked byte, so that a word of seven letters takes seven of them, and one more
    for the space before it: the published model does better where the space is masked too. Characters may be masked by
    their place in the text instead.

    All masked bytes are guessed at once. What is filled in is the most probable of all byte sequences that are whole
    UTF-8 characters; see `most_probable_text`.

    Texts are padded to the longest of their batch, and the padding is masked. The published model was trained on texts
    padded to its 2,048 bytes, but what is masked changes nothing, so that this gives the same for less work.

    Args:
        model: The model. It is used where it is, and as it is: put it on an accelerator and in evaluation mode before.
        tokenizer: Turns texts into bytes and special tokens.
        add_special_tokens: Whether a text stands between [CLS] and [SEP], as the tokenizer of `transformers` puts it.
            The notebook of the original release leaves them out.
        top_k: How many candidates each masked byte gets.
        batch_size: Texts at once.

    Raises:
        ValueError: The tokenizer is not one of bytes or does not fit the model, or a number is out of range.
    """

    def __init__(
        self,
        model: PerceiverIOForMaskedLM,
        tokenizer: PerceiverTokenizer | None = None,
        *,
        add_special_tokens: bool = True,
        top_k: int = 5,
        batch_size: int = 8,
    ) -> None:
        tokenizer = PerceiverTokenizer() if tokenizer is None else tokenizer
        if not isinstance(tokenizer, PerceiverTokenizer):
            raise ValueError(
                f"The tokenizer must be a PerceiverTokenizer, whose tokens are bytes, got {type(tokenizer).__name__}."
            )
        if len(tokenizer) != model.vocab_size:
            raise ValueError(f"The tokenizer has {len(tokenizer)} tokens, the model {model.vocab_size}.")
        if not 1 <= top_k <= _NUM_BYTES:
            raise ValueError(f"top_k is {top_k}, expected 1 to {_NUM_BYTES}.")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected 1 or more.")
        self.model = model
        self.tokenizer = tokenizer
        self.add_special_tokens = add_special_tokens
        self.top_k = top_k
        self.batch_size = batch_size
        first_byte: Any = tokenizer.convert_tokens_to_ids(chr(0))
        self._first_byte = int(first_byte)

    @overload
    def __call__(self, texts: str, *, mask: Span | Sequence[Span] | None = None) -> FilledText: ...

    @overload
    def __call__(self, texts: list[str], *, mask: None = None) -> list[FilledText]: ...

    def __call__(
        self, texts: str | list[str], *, mask: Span | Sequence[Span] | None = None
    ) -> FilledText | list[FilledText]:
        """Fills one text or several in.

        Args:
            texts: The text or texts, with `[MASK]` for each byte that is to be guessed.
            mask: Instead, the characters of the one text that are to be guessed: from and up to (not with) an index, as
                in slices. Or several such ranges.

        Returns:
            One result for one text; a list for several.

        Raises:
            ValueError: Nothing is masked, a range is empty or outside the text, a text is longer than the model's, or
                the model gives values that are not numbers.
        """
        if isinstance(texts, str):
            return self._fill([self._encode(texts, mask)])[0]
        if mask is not None:
            raise ValueError(
                "mask says which characters of one text are masked; write [MASK] in several texts."
            )
        encoded = [self._encode(text, None) for text in texts]
        starts = range(0, len(encoded), self.batch_size)
        return [one for start in starts for one in self._fill(encoded[start : start + self.batch_size])]

    def _encode(self, text: str, mask: Span | Sequence[Span] | None) -> list[int]:
        """Returns the tokens of a text, those to guess as the mask token."""
        if not isinstance(text, str):
            raise ValueError(f"A text must be a string, got {type(text).__name__}.")
        token: str = self.tokenizer.mask_token
        if mask is None:
            parts = text.split(token)
            if len(parts) == 1:
                raise ValueError(
                    f"Nothing is masked in {text!r:.80}: write {token} for each byte that is to be guessed."
                )
            tokens = self._bytes(parts[0])
            for part in parts[1:]:
                tokens += [self._mask_id, *self._bytes(part)]
        else:
            if token in text:
                raise ValueError(f"There is {token} in the text, and a mask beside it: choose one.")
            tokens, end = [], 0
            for start, stop in _sorted_spans(mask, text):
                tokens += self._bytes(text[end:start])
                tokens += [self._mask_id] * len(text[start:stop].encode())
                end = stop
            tokens += self._bytes(text[end:])
        if self.add_special_tokens:
            tokens = self.tokenizer.build_inputs_with_special_tokens(tokens)
        if len(tokens) > self.model.max_length:
            special = " with [CLS] and [SEP]" if self.add_special_tokens else ""
            raise ValueError(
                f"The text {text!r:.40} has {len(tokens)} tokens{special}, the model takes {self.model.max_length}: "
                "shorten or split it. Each byte is one token."
            )
        return tokens

    @property
    def _mask_id(self) -> int:
        token_id: int = self.tokenizer.mask_token_id
        return token_id

    def _bytes(self, text: str) -> list[int]:
        """Returns the tokens of a text's bytes; a "[PAD]" that somebody wrote is five letters."""
        return [self._first_byte + byte for byte in text.encode()]

    @torch.inference_mode()
    def _fill(self, batch: list[list[int]]) -> list[FilledText]:
        longest = max(map(len, batch))
        ids_BT = torch.full((len(batch), longest), self.tokenizer.pad_token_id)
        mask_BT = torch.zeros(len(batch), longest, dtype=torch.bool)
        for row, tokens in enumerate(batch):
            ids_BT[row, : len(tokens)] = torch.tensor(tokens)
            mask_BT[row, : len(tokens)] = True
        guessed_BT = ids_BT == self._mask_id
        # Only what is masked in some text is decoded.
        positions_O = guessed_BT.any(dim=0).nonzero().flatten()
        device = self.model.device
        logits_BOV = self.model.logits_at(
            ids_BT.to(device), positions_O.to(device), None if mask_BT.all() else mask_BT.to(device)
        )
        log_probabilities_BOV = logits_BOV.float().log_softmax(-1).cpu()
        if not log_probabilities_BOV.isfinite().all():
            raise ValueError("The model gives values that are not numbers: its weights are damaged.")
        return [
            self._filled(tokens, positions_O[row_O], log_probabilities_BOV[row][row_O])
            for row, (tokens, row_O) in enumerate(zip(batch, guessed_BT[:, positions_O], strict=True))
        ]

    def _filled(self, tokens: list[int], positions_O: Tensor, log_probabilities_OV: Tensor) -> FilledText:
        bytes_V = slice(self._first_byte, self._first_byte + _NUM_BYTES)
        scores_OV = log_probabilities_OV[:, bytes_V].double().numpy()
        positions = positions_O.tolist()
        # A run of masked bytes lies between whole characters, and is whole characters itself.
        fills, start = [], 0
        for _, run in itertools.groupby(enumerate(positions), key=lambda pair: pair[1] - pair[0]):
            stop = start + len(list(run))
            fills.append(most_probable_text(scores_OV[start:stop]))
            start = stop
        filled = b"".join(fills)
        tokens = list(tokens)
        for position, byte in zip(positions, filled, strict=True):
            tokens[position] = self._first_byte + byte
        offset = 1 if self.add_special_tokens else 0
        whole = bytes(token - self._first_byte for token in tokens[offset : len(tokens) - offset])
        masked = tuple(
            MaskedByte(
                position=position - offset,
                filled=_guess(byte, scores_V),
                candidates=tuple(
                    _guess(int(value), scores_V)
                    for value in np.argsort(-scores_V, kind="stable")[: self.top_k]
                ),
            )
            for position, byte, scores_V in zip(positions, filled, scores_OV, strict=True)
        )
        return FilledText(text=whole.decode(), fills=tuple(fill.decode() for fill in fills), masked=masked)


def _guess(byte: int, scores_V: np.ndarray[Any, Any]) -> ByteGuess:
    text = chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"
    return ByteGuess(byte=byte, text=text, probability=float(np.exp(scores_V[byte])))


def _sorted_spans(mask: Span | Sequence[Span], text: str) -> list[Span]:
    one = len(mask) == 2 and all(isinstance(end, int) for end in mask)
    spans: list[Any] = sorted([mask] if one else mask)
    end = 0
    for span in spans:
        if len(span) != 2 or not end <= span[0] < span[1] <= len(text):
            raise ValueError(
                f"mask has the range {tuple(span)}, expected a start and an end within the {len(text)} characters of "
                "the text, that is neither empty nor overlaps another."
            )
        end = span[1]
    if not spans:
        raise ValueError("mask has no ranges: nothing would be masked.")
    return [(start, stop) for start, stop in spans]
