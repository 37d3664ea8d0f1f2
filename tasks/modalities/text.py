"""Texts as tasks see them: their UTF-8 bytes.

Shape legend: T tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from perceiver_io.adapters.text import TextAdapter
from perceiver_io.adapters.text_processor import ByteTextProcessor
from perceiver_io.component import ComponentConfig
from perceiver_io.data import Content, file_feature
from perceiver_io.input_tools import check_positive
from perceiver_io.media.source import Source
from perceiver_io.media.texts import read_text, text_fault, text_suffixes
from perceiver_io.pictures.seen import Seen
from perceiver_io.pictures.seen_text import SeenText, byte_pieces
from perceiver_io.tasks.modalities.modality import Modality
from perceiver_io.tasks.modalities.variation import check_fractions, uniform

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["TEXTS", "TextModality", "TextSettings"]

_LONGEST = 2048  # tokens that a model takes at most, unless it is told
_MASK = 3  # in the published vocabulary


@dataclass(frozen=True, kw_only=True)
class TextSettings(ComponentConfig):
    """What a recipe says of texts.

    Attributes:
        max_length: The most tokens of a text, [CLS] and [SEP] included; longer ones are cut. Those of the longest
            training text if None, but 2,048 at most.
        crop: Largest part of a text that is cut off in training, before and after a random window.
        byte_dropout: Part of the bytes that [MASK] stands for in training.
    """

    max_length: int | None = None
    crop: float = 0.5
    byte_dropout: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "max_length")
        check_fractions(self, "crop", "byte_dropout")


class _TextContent(Content):
    """Texts: what is no file is the text itself."""

    def read(self, file: str) -> str:
        """Reads a file; anything else is the text."""
        return read_text(file) if os.path.isfile(file) else file


def _decoded(value: str | Source) -> str:
    return value if isinstance(value, str) else read_text(value)


def _typed(rows: Dataset, column: str) -> Dataset:
    """Makes files of a column of texts, as those of a folder are."""
    feature = rows.features[column]
    if feature == file_feature():
        return rows
    if getattr(feature, "dtype", None) not in ("string", "large_string"):
        raise TypeError(f"{feature} is no text.")
    files = [None if text is None else {"bytes": text.encode(), "path": None} for text in rows[column]]
    return rows.remove_columns(column).add_column(column, files, feature=file_feature())


class TextModality(Modality):
    """Texts."""

    name = "text"
    Settings = TextSettings
    content = _TextContent(
        column="text",
        noun="texts",
        feature=file_feature,
        suffixes=text_suffixes,
        fault=text_fault,
        decode=_decoded,
        stored=lambda path: {"path": path, "bytes": None},
        typed=_typed,
    )

    def processor(self, settings: TextSettings, values: Iterable[str]) -> ByteTextProcessor:
        """Returns a processor of bytes, for the longest training text if the settings leave that open."""
        length = settings.max_length
        if length is None:
            longest = max((len(text.encode(errors="replace")) for text in values), default=_LONGEST)
            length = min(longest + 2, _LONGEST)
        return ByteTextProcessor(max_length=length)

    def loaded(self, processor: Any) -> ByteTextProcessor:
        """Returns what does the same as a tokenizer."""
        return ByteTextProcessor.of_tokenizer(processor)

    def adapter(self, settings: TextSettings, processor: ByteTextProcessor) -> ComponentConfig:
        """Returns the adapter: convolved embeddings, beside Fourier features of their place."""
        return TextAdapter.Config(
            max_length=processor.max_length,
            num_channels=96,
            features="conv",
            embedding_channels=32,
            position="fourier",
            num_bands=16,
        )

    def varied(self, value: str, processor: ByteTextProcessor, settings: TextSettings) -> Tensor:
        """Takes a random window of a text, and hides some of its bytes."""
        whole_T = ByteTextProcessor(max_length=len(value.encode()) + 2 or 3).prepare(value)
        first, inner_T, last = whole_T[:1], whole_T[1:-1], whole_T[-1:]
        length = max(1, min(round(len(inner_T) * (1 - uniform(0, settings.crop))), processor.num_bytes))
        start = int(torch.randint(len(inner_T) - length + 1, ()))
        window_T = inner_T[start : start + length]
        window_T = torch.where(torch.rand(length) < settings.byte_dropout, _MASK, window_T)
        return torch.cat([first, window_T, last])

    def seen(self, value: str, sample: Tensor, processor: ByteTextProcessor) -> Seen:
        """Returns the characters, each where its first byte is."""
        return SeenText(pieces=byte_pieces(sample.tolist()))


TEXTS = TextModality()
