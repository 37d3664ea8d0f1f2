"""MIDI files and notes to the ids of events, and back: the processor of models that continue music.

Shape legend: B batch, T events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiver_io.adapters.music_events import EDGE, VOCAB_SIZE, decode_events, encode_notes, events_until
from perceiver_io.component import ComponentConfig
from perceiver_io.media.midi import NOTE, Notes, read_midi
from perceiver_io.media.source import is_source
from perceiver_io.ragged import pad_ragged
from perceiver_io.registry import register_processor

__all__ = ["MusicProcessor"]


@register_processor("music")
@dataclass(frozen=True, kw_only=True)
class MusicProcessor(ComponentConfig):
    """Turns music into the ids of its events; `perceiver_io.adapters.music_events` has the vocabulary.

    Attributes:
        krasserm: Whether the events are those that krasserm's encoder makes, see `encode_notes`. What drums play is
            kept then, though events do not say that it is drums.
        edges: Whether a piece stands between two edges, so that a model can begin one, and end it.
    """

    krasserm: bool = False
    edges: bool = True

    @property
    def pad_id(self) -> int:
        """What pads batches."""
        return EDGE

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return VOCAB_SIZE

    def encode(self, value: Any) -> NDArray[np.int64]:
        """Returns the events of a whole piece, between edges if the processor has them.

        Args:
            value: As `prepare`.

        Raises:
            ValueError: As `prepare`.
        """
        events = self._events(value)
        edge = [EDGE] if self.edges else []
        return np.concatenate([edge, events, edge]).astype(np.int64)

    def prompt(self, value: Any, *, seconds: float | None = None) -> NDArray[np.int64]:
        """Returns what a model is to continue.

        Args:
            value: As `prepare`; None for nothing: a piece is to begin.
            seconds: How much of it, from its beginning; all if None. Keys that are down then stay so.

        Raises:
            ValueError: As `prepare`; or nothing is left, and the processor has no edge to begin with.
        """
        events = np.empty(0, dtype=np.int64) if value is None else self._events(value)
        if seconds is not None:
            events = events_until(events, seconds)
        if not self.edges and not len(events):
            raise ValueError(
                "There is no event to continue, and this model knows no beginning of a piece: give it a MIDI file, or "
                "more of it."
            )
        return np.concatenate([[EDGE] if self.edges else [], events]).astype(np.int64)

    def prepare(self, value: Any) -> Tensor:
        """Returns the events of a whole piece.

        Args:
            value: Notes, (N,) of `perceiver_io.media.midi.NOTE`; or a file: a path, bytes, or a mapping of `path` and
                `bytes`.

        Returns:
            (T,) int64.

        Raises:
            ValueError: It is no music, damaged, or without notes.
        """
        return torch.from_numpy(self.encode(value))

    def collate(self, samples: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """Makes a batch (B, T) of samples, padded at their ends, and its mask (B, T)."""
        return pad_ragged(samples, value=EDGE)

    def decode(self, ids: Iterable[int]) -> Notes:
        """Returns the notes of events, whatever they are; see `decode_events`."""
        return decode_events(ids)

    def _events(self, value: Any) -> NDArray[np.int64]:
        notes = read_midi(value, drums=self.krasserm) if is_source(value) else value
        if not isinstance(notes, np.ndarray) or notes.dtype != NOTE or notes.ndim != 1:
            got = f"{notes.dtype} {notes.shape}" if isinstance(notes, np.ndarray) else type(notes).__name__
            raise ValueError(
                f"Got {got}, expected notes (N,) of perceiver_io.media.midi.NOTE, or a MIDI file."
            )
        if not len(notes):
            raise ValueError("The music has no notes, expected one or more. Leave it out.")
        return encode_notes(notes, krasserm=self.krasserm)
