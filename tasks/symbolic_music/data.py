"""Music to learn from: made-up tunes, and folders of MIDI files."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_io.adapters.music_processor import MusicProcessor
from perceiver_io.data import Content, Splits, file_feature
from perceiver_io.data.settings import DataSettings
from perceiver_io.data.unlabelled import read_unlabelled
from perceiver_io.media.midi import midi_suffixes
from perceiver_io.media.source import Source, fault_of, is_source, located
from perceiver_io.tasks.autoregressive.windows import TokenWindows
from perceiver_io.tasks.symbolic_music.tunes import MUSIC, made_up_tunes

__all__ = ["EMBEDDED", "read_music"]

EMBEDDED = {"made-up-tunes": made_up_tunes}


def read_music(
    settings: DataSettings,
    processor: MusicProcessor,
    *,
    seed: int,
    max_length: int,
    num_latents: int,
    move_windows: bool = True,
) -> Splits:
    """Reads the music that the settings name, splits it by piece, and cuts its events in windows.

    Args:
        settings: Their `dataset` is as that of `read_unlabelled`: an embedded set, a folder with MIDI files in it or
            anywhere below it, `{train,validation,test}` with such, or tables with a column "music".
        processor: Makes events of notes.
        seed: Decides which pieces are validated on.
        max_length: Events of a window.
        num_latents: One more than the events that a window predicts.
        move_windows: Whether those of the training are cut at other places each time.

    Raises:
        ValueError: There is no such data, or a file is no music.
    """
    reader = _Reader(processor)
    content = Content(
        column=MUSIC,
        noun="MIDI files",
        feature=file_feature,
        suffixes=midi_suffixes,
        fault=reader.fault,
        stored=lambda path: {"path": path, "bytes": None},
    )
    pieces = read_unlabelled(settings, content, embedded=EMBEDDED, seed=seed)

    def cut(rows: Any, *, movable: bool = False) -> TokenWindows:
        documents = [reader.events(rows[index][MUSIC]) for index in range(len(rows))]
        return TokenWindows(documents, max_length=max_length, num_latents=num_latents, movable=movable)

    return Splits(
        train=cut(pieces.train, movable=move_windows),
        validation=None if pieces.validation is None else cut(pieces.validation),
        test=cut(pieces.test),
    )


class _Reader:
    """Makes events of files once: what was looked at to find bad ones is not read again."""

    def __init__(self, processor: MusicProcessor) -> None:
        self.processor = processor
        self.found: dict[Any, NDArray[np.int16]] = {}

    def fault(self, source: Source | None) -> str | None:
        return fault_of(self.events, source)

    def events(self, value: Any) -> NDArray[np.int16]:
        if not is_source(value):
            return self.processor.encode(value).astype(np.int16)
        where = located(value)
        if where not in self.found:
            self.found[where] = self.processor.encode(value).astype(np.int16)
        return self.found[where]
