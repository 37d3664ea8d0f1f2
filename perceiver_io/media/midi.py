"""MIDI files as notes, and back; notes made audible.

Shape legend: N notes, S samples.
"""

from __future__ import annotations

import io
import os
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perceiver_io.budget import most_decoded_bytes
from perceiver_io.extras import require
from perceiver_io.files import writing
from perceiver_io.media.source import Source, UnreadableError, fault_of, open_source, unreadable

__all__ = [
    "MAX_EVENTS",
    "MAX_SECONDS",
    "NOTE",
    "Notes",
    "midi_fault",
    "midi_suffixes",
    "new_notes",
    "read_midi",
    "synthesized",
    "write_midi",
]

NOTE = np.dtype([("pitch", "u1"), ("velocity", "u1"), ("start", "f8"), ("end", "f8")])
"""A note: pitch 0 to 127 (60 is middle C), velocity 1 to 127, and from when to when it sounds, in seconds."""

Notes: TypeAlias = "NDArray[np.void]"
"""(N,) of `NOTE`, by their starts; those that start together are as the file has them."""

MAX_EVENTS = 500_000
"""The most events of a file that is read. A concert of piano with its pedals has a tenth of that."""

MAX_SECONDS = 100_000
"""The longest music that is read, 27 hours: a file of 60 bytes can have a note after years, and every second is an
event."""

_SUFFIXES = {".mid", ".midi"}
_PEDAL, _PEDAL_DOWN = 64, 64  # the controller, and its least value that holds notes
_HEADER = b"MThd"
# So that a hundredth of a second is a whole number of ticks.
_RESOLUTION, _TEMPO = 500, 120.0
_LEAST_BYTES = 2  # of an event: a delta time and a data byte
_FADE = 0.05
_PARTIALS = (1.0, 0.4, 0.2, 0.1)


def read_midi(source: Source, *, drums: bool = False, max_events: int = MAX_EVENTS) -> Notes:
    """Reads the notes of all instruments of a MIDI file.

    A note that ends while the sustain pedal is down sounds until the pedal comes up, or the same key is struck again.
    Tempo changes count in whichever track they stand.

    Args:
        source: The file: a path, bytes, or a mapping of `path` and `bytes`.
        drums: Whether those of the drum channel are read too, whose pitches are instruments.
        max_events: More events (notes, pedals, everything) than that are refused, before they are read.

    Raises:
        UnreadableError: There is no such file, it is no MIDI file, it is damaged or cut short, it has no notes, too
            many events, or lasts too long.
        ImportError: pretty_midi is not installed.
    """
    pretty_midi, mido = require("pretty_midi", extra="music"), require("mido", extra="music")
    with open_source(source) as file:
        content = file.read()
    if not content.startswith(_HEADER):
        raise unreadable(source, f"no MIDI file: it begins with {content[:4]!r} instead of {_HEADER!r}")
    try:
        if len(content) > _LEAST_BYTES * max_events and _has_more_events(content, max_events):
            raise unreadable(
                source,
                f"too long: it has more than {max_events:,} events, such as notes and pedals; cut it in pieces",
            )
        midi = mido.MidiFile(file=io.BytesIO(content))
        if midi.ticks_per_beat <= 0:
            raise unreadable(source, "a MIDI file that counts film frames (SMPTE); save it with ticks a beat")
        _bring_tempos_together(midi, mido)
        piece = pretty_midi.PrettyMIDI(mido_object=midi)
    except (EOFError, IndexError) as error:
        raise unreadable(source, "a damaged MIDI file: it is cut short") from error
    except (ImportError, MemoryError, UnreadableError):
        raise
    except Exception as error:  # the readers raise what they like
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise unreadable(source, f"a damaged MIDI file ({reason:.100})") from error
    read = [instrument for instrument in piece.instruments if drums or not instrument.is_drum]
    total = piece.get_end_time()
    if not total <= MAX_SECONDS:
        raise unreadable(
            source, f"too long: it ends after {total:,.0f} seconds, expected at most {MAX_SECONDS:,}"
        )
    notes = np.array([note for instrument in read for note in _sounding(instrument, total)], dtype=NOTE)
    if not len(notes):
        has_drums = any(instrument.notes for instrument in piece.instruments)
        raise unreadable(source, f"no music: it has no notes{' but those of drums' if has_drums else ''}")
    return notes[np.argsort(notes["start"], kind="stable")]


def new_notes(pitch: Any, velocity: Any, start: Any, end: Any) -> Notes:
    """Returns notes, sorted by their starts.

    Args:
        pitch: (N,) 0 to 127.
        velocity: (N,) or a number, 1 to 127.
        start: (N,) seconds.
        end: (N,) seconds, each after its start.

    Raises:
        ValueError: A value is out of its range.
    """
    notes = np.empty(len(pitch), dtype=NOTE)
    for name, values, least in (("pitch", pitch, 0), ("velocity", velocity, 1)):
        values = np.asarray(values)
        if len(notes) and not ((values >= least) & (values <= 127)).all():
            raise ValueError(f"A {name} must be from {least} to 127, got {values.min()} to {values.max()}.")
        notes[name] = values
    notes["start"], notes["end"] = start, end
    _check(notes)
    return notes[np.argsort(notes["start"], kind="stable")]


def write_midi(path: str | os.PathLike[str], notes: Notes, *, program: int = 0) -> None:
    """Writes notes as a MIDI file of one instrument, whole or not at all. Times are rounded to milliseconds.

    Args:
        path: File to write.
        notes: (N,) of `NOTE`; none make a file without music.
        program: The instrument of General MIDI, 0 to 127; 0 is a piano.

    Raises:
        ValueError: A note ends before it starts, or a value is out of its range.
        OSError: The file cannot be written; nothing of it is left, and what was there before still is.
        ImportError: pretty_midi is not installed.
    """
    piece = _piece(notes, program)
    with writing(path) as partial:
        piece.write(str(partial))


def synthesized(notes: Notes, *, sample_rate: int = 22050, program: int = 0) -> NDArray[np.float64]:
    """Returns what notes sound like: by FluidSynth where pyfluidsynth is installed, else by a plain sum of partials.

    Args:
        notes: (N,) of `NOTE`, at least one.
        sample_rate: Samples a second.
        program: As `write_midi`; only FluidSynth knows instruments.

    Returns:
        (S,) samples from -1 to 1.

    Raises:
        ValueError: There are no notes, they are as `write_midi` refuses them, or last too long.
        ImportError: pretty_midi is not installed.
    """
    if not len(notes):
        raise ValueError("There are no notes to be heard, expected one or more.")
    piece = _piece(notes, program)
    size, most = 8 * sample_rate * float(notes["end"].max()), most_decoded_bytes()
    if size > most:
        raise ValueError(
            f"The notes last {notes['end'].max():,.0f} seconds, which take {size:,.0f} bytes of samples, and at most "
            f"{most:,} are made. Cut them in pieces, or choose a lower sample_rate."
        )
    try:
        samples = piece.fluidsynth(fs=sample_rate)
    except ImportError:
        samples = piece.synthesize(fs=sample_rate, wave=_tone)
    samples = np.asarray(samples, np.float64)
    loudest = np.abs(samples).max()
    return samples / loudest if loudest > 1 else samples


def midi_suffixes() -> set[str]:
    """Returns the endings of MIDI files, in lower case."""
    return set(_SUFFIXES)


def midi_fault(source: Source | None) -> str | None:
    """Returns what is wrong with a MIDI file, None if it can be read.

    Args:
        source: As `read_midi`; None where there is none.
    """
    return fault_of(read_midi, source)


def _piece(notes: Notes, program: int) -> Any:
    pretty_midi = require("pretty_midi", extra="music")
    if not 0 <= program <= 127:
        raise ValueError(f"program is {program}, expected an instrument of General MIDI, 0 to 127.")
    _check(notes)
    piece = pretty_midi.PrettyMIDI(resolution=_RESOLUTION, initial_tempo=_TEMPO)
    instrument = pretty_midi.Instrument(program=program)
    instrument.notes = [
        pretty_midi.Note(velocity=int(velocity), pitch=int(pitch), start=float(start), end=float(end))
        for pitch, velocity, start, end in notes.tolist()
    ]
    piece.instruments.append(instrument)
    return piece


def _check(notes: Notes) -> None:
    good = (notes["start"] >= 0) & (notes["end"] > notes["start"]) & np.isfinite(notes["end"])
    if not good.all():
        place = int(np.argmin(good))
        raise ValueError(
            f"Note {place} sounds from {notes['start'][place]} to {notes['end'][place]} s, expected a start of 0 or "
            "more, and an end after it."
        )
    if len(notes) and (
        notes["pitch"].max() > 127 or notes["velocity"].max() > 127 or not notes["velocity"].min()
    ):
        raise ValueError("Pitches must be from 0 to 127, and velocities from 1 to 127.")


def _tone(phase: NDArray[np.float64]) -> NDArray[np.float64]:
    """A wave with some partials: a sine alone sounds dull, and low ones are not heard."""
    wave = np.zeros_like(phase)
    for number, weight in enumerate(_PARTIALS, start=1):
        wave += weight / sum(_PARTIALS) * np.sin(number * phase)
    return wave


def _sounding(instrument: Any, total: float) -> list[tuple[int, int, float, float]]:
    """An instrument's notes, those that the pedal holds with the ends that are heard."""
    pedal = [
        (one.time, one.value >= _PEDAL_DOWN) for one in instrument.control_changes if one.number == _PEDAL
    ]
    downs: list[float] = []
    ups: list[float] = []
    for time, is_down in sorted(pedal, key=lambda change: change[0]):
        if is_down and len(downs) == len(ups):
            downs.append(time)
        elif not is_down and len(downs) > len(ups):
            ups.append(time)
    if len(downs) > len(ups):  # it stays down
        ups.append(max(total, downs[-1]))
    starts: dict[int, list[float]] = {}
    for note in instrument.notes:
        starts.setdefault(note.pitch, []).append(note.start)
    sorted_starts = {pitch: np.sort(times) for pitch, times in starts.items()}
    found = []
    for note in instrument.notes:
        end = note.end
        if end <= note.start or not note.velocity:
            continue
        held = int(np.searchsorted(downs, end, side="right")) - 1
        if held >= 0 and end < ups[held]:
            same = sorted_starts[note.pitch]
            after = int(np.searchsorted(same, end))
            end = min(ups[held], same[after]) if after < len(same) else ups[held]
        found.append((note.pitch, note.velocity, note.start, max(end, note.end)))
    return found


def _bring_tempos_together(midi: Any, mido: Any) -> None:
    """Moves tempo changes of all tracks to the first, where pretty_midi looks for them, and leaves signatures out.

    It would warn of those, and a warning cannot be kept silent in one of several threads.
    """
    tempos: list[tuple[int, Any]] = []
    tracks = []
    for number, track in enumerate(midi.tracks):
        tick = 0
        kept: list[tuple[int, Any]] = []
        for message in track:
            tick += message.time
            if message.type in ("key_signature", "time_signature"):
                continue
            (tempos if message.type == "set_tempo" and number else kept).append((tick, message))
        tracks.append(kept)
    if not tracks:
        return
    tracks[0] = sorted([*tracks[0], *tempos], key=lambda pair: pair[0])
    for number, kept in enumerate(tracks):
        before, messages = 0, []
        for tick, message in kept:
            message.time, before = tick - before, tick
            messages.append(message)
        midi.tracks[number] = mido.MidiTrack(messages)


def _has_more_events(content: bytes, most: int) -> bool:
    """Whether a file has more events than that, found without making any: a hundred times as fast as reading them.

    Raises:
        IndexError: It is cut short.
    """
    count, place = 0, 8 + int.from_bytes(content[4:8], "big")
    while place + 8 <= len(content):
        is_track, size = (
            content[place : place + 4] == b"MTrk",
            int.from_bytes(content[place + 4 : place + 8], "big"),
        )
        place += 8
        end, status = place + size, 0
        while is_track and place < end:
            _, place = _number(content, place)
            if content[place] & 0x80:
                status = content[place]
                place += 1
            if status in (0xF0, 0xF7, 0xFF):
                size, place = _number(content, place + (status == 0xFF))
                place += size
            else:
                place += 1 if status & 0xE0 == 0xC0 else 2
            count += 1
            if count > most:
                return True
        place = end
    return False


def _number(content: bytes, place: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = 0
    while content[place] & 0x80:
        value = value << 7 | content[place] & 0x7F
        place += 1
    return value << 7 | content[place], place + 1
