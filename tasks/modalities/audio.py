"""Sound as tasks see it: recordings of any length and rate, as samples or as log-mel frames.

Shape legend: F channels or mel bands, S samples, T time frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from perceiver_io.adapters.audio import AudioAdapter
from perceiver_io.adapters.audio_processor import PerceiverIOFeatureExtractor
from perceiver_io.adapters.spectrogram import SpectrogramAdapter
from perceiver_io.component import ComponentConfig
from perceiver_io.data import Content, file_feature
from perceiver_io.extras import require
from perceiver_io.input_tools import check_positive
from perceiver_io.media.sound import Sound, read_sound, sound_fault, sound_suffixes
from perceiver_io.pictures.seen import Seen
from perceiver_io.pictures.seen_sound import SeenSound
from perceiver_io.pictures.seen_spectrogram import SeenSpectrogram
from perceiver_io.tasks.modalities.modality import Modality
from perceiver_io.tasks.modalities.variation import check_fractions, uniform

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["AUDIO", "AudioModality", "AudioSettings"]

# What a new model's positions cover, where there is no data to tell.
_NOMINAL_SECONDS = 1.0
_USUAL_RATE = 16000
# Seconds of an element of raw samples.
_RAW_ELEMENT = 0.02


@dataclass(frozen=True, kw_only=True)
class AudioSettings(ComponentConfig):
    """What a recipe says of recordings.

    Attributes:
        sampling_rate: Samples a second that the model takes; that of the first training recording if None.
        num_channels: 1 mixes recordings down to mono.
        features: "log-mel" frames, or "raw" samples, which strided convolutions look at first.
        num_mel_bands: Bands of a log-mel frame.
        max_seconds: Longer recordings are cut; the longest training recording's length if None, but 10 at most.
        samples_per_patch: Raw samples of an element; those of 20 ms if None.
        speed: Largest change of speed in training: 0.1 is from 0.9 to 1.1 times the speed.
        shift: Largest shift in time in training, in seconds.
        gain: Largest change of loudness in training, in decibels; what is normalised hears nothing of it.
        noise: Loudest noise in training, as a part of the deviation of the samples or frames.
        mask_time: Largest part of the time frames that is blanked at once in training (SpecAugment, Park et al., 2019).
        mask_bands: Largest part of the mel bands that is blanked at once, twice.
    """

    sampling_rate: int | None = None
    num_channels: int = 1
    features: Literal["log-mel", "raw"] = "log-mel"
    num_mel_bands: int = 40
    max_seconds: float | None = None
    samples_per_patch: int | None = None
    speed: float = 0.15
    shift: float = 0.04
    gain: float = 6.0
    noise: float = 0.1
    mask_time: float = 0.2
    mask_bands: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "sampling_rate", "num_channels", "num_mel_bands", "samples_per_patch")
        check_fractions(self, "speed", "noise", "mask_time", "mask_bands")
        if self.max_seconds is not None and self.max_seconds <= 0:
            raise ValueError(f"max_seconds is {self.max_seconds}, expected more than 0.")


def _typed(rows: Dataset, column: str) -> Dataset:
    """Files of a column of `datasets.Audio`, of paths, or of paths and bytes; they are not decoded by `datasets`."""
    sounds = rows.cast_column(column, require("datasets", extra="train").Audio(decode=False))
    return sounds.cast_column(column, file_feature())


class AudioModality(Modality):
    """Recordings."""

    name = "audio"
    Settings = AudioSettings
    content = Content(
        column="audio",
        noun="recordings",
        feature=file_feature,
        suffixes=sound_suffixes,
        fault=sound_fault,
        decode=lambda value: (
            read_sound(value) if isinstance(value, Mapping) and "array" not in value else value
        ),
        stored=lambda path: {"bytes": None, "path": path},
        typed=_typed,
    )

    def processor(self, settings: AudioSettings, values: Iterable[Sound]) -> PerceiverIOFeatureExtractor:
        """Returns a feature extractor of the training recordings' rate and length, if the settings leave them open."""
        rate, seconds = settings.sampling_rate, settings.max_seconds
        if rate is None or seconds is None:
            longest = 0.0
            for sound in map(_as_sound, values):
                rate = sound.sample_rate if rate is None else rate
                longest = max(longest, sound.samples.shape[-1] / sound.sample_rate)
            seconds = min(longest or _NOMINAL_SECONDS, 10.0) if seconds is None else seconds
        rate = rate or _USUAL_RATE
        raw = settings.features == "raw"
        patch = settings.samples_per_patch or max(1, round(_RAW_ELEMENT * rate))
        return PerceiverIOFeatureExtractor(
            sampling_rate=rate,
            num_channels=settings.num_channels,
            features=settings.features,
            num_mel_bands=settings.num_mel_bands,
            normalize="rms" if raw else "standard",
            multiple_of=patch if raw else 4,
            max_seconds=math.ceil(seconds * 100) / 100,
        )

    def adapter(self, settings: AudioSettings, processor: PerceiverIOFeatureExtractor) -> ComponentConfig:
        """Returns the adapter of raw samples, or of log-mel frames; positions cover the longest recording."""
        of = processor.settings
        length = round((of.max_seconds or _NOMINAL_SECONDS) * of.sampling_rate)
        if of.features == "raw":
            patch = of.multiple_of
            return AudioAdapter.Config(
                num_samples=-(-length // patch) * patch,
                samples_per_patch=patch,
                features="conv",
                audio_channels=of.num_channels,
                num_bands=16,
                max_resolution=-(-length // patch),
                position_extent="nominal",
            )
        num_frames = of.num_frames(length)
        return SpectrogramAdapter.Config(
            size=(-(-num_frames // 4) * 4, processor.num_features), features="conv", num_bands=16
        )

    def varied(self, value: Any, processor: PerceiverIOFeatureExtractor, settings: AudioSettings) -> Tensor:
        """Changes speed, place, loudness; adds noise; blanks stretches of time and of frequency."""
        sound = _as_sound(value)
        samples_FS = torch.as_tensor(sound.samples)
        samples_FS = _shifted(samples_FS, round(uniform(-1, 1) * settings.shift * sound.sample_rate))
        samples_FS = samples_FS * 10 ** (uniform(-1, 1) * settings.gain / 20)
        varied = Sound(samples_FS.numpy(), sound.sample_rate)
        sample = _at_speed(processor.prepare(varied), 1 + uniform(-1, 1) * settings.speed, processor)
        sample = sample + torch.randn_like(sample) * sample.std() * uniform(0, settings.noise)
        if processor.settings.features == "raw":
            return sample
        num_frames, num_bands = sample.shape
        sample = sample.clone()
        for axis, size, part in (
            (0, num_frames, settings.mask_time),
            *((1, num_bands, settings.mask_bands),) * 2,
        ):
            width = int(size * uniform(0, part))
            sample.narrow(axis, int(uniform(0, size - width)), width).zero_()
        return sample

    def seen(self, value: Any, sample: Tensor, processor: PerceiverIOFeatureExtractor) -> Seen:
        """Returns the samples, or the log-mel picture."""
        of = processor.settings
        padded = processor.collate([sample])[0][0].numpy()  # what elements cover
        if of.features == "raw":
            return SeenSound(samples=padded, sample_rate=of.sampling_rate, num_real=sample.shape[-1])
        seconds = of.hop / of.sampling_rate
        return SeenSpectrogram(values=padded, seconds_per_frame=seconds, num_real=len(sample))


AUDIO = AudioModality()


def _as_sound(value: Any) -> Sound:
    if isinstance(value, Sound):
        return value
    if isinstance(value, Mapping) and {"array", "sampling_rate"} <= set(value):
        samples = torch.as_tensor(value["array"]).float()
        return Sound((samples if samples.ndim == 2 else samples[None]).numpy(), int(value["sampling_rate"]))
    raise ValueError(f"Got {type(value).__name__}, expected a sound file or a Sound.")


def _shifted(samples_FS: Tensor, by: int) -> Tensor:
    """Moves a sound later, with silence before it, or cuts off its beginning."""
    if by >= 0:
        return torch.nn.functional.pad(samples_FS, (by, 0))
    return samples_FS[:, min(-by, samples_FS.shape[1] // 2) :]


def _at_speed(sample: Tensor, speed: float, processor: PerceiverIOFeatureExtractor) -> Tensor:
    """Stretches or squeezes samples, or time frames."""
    rows = (
        sample.T[None]
        if processor.settings.features == "log-mel"
        else sample.reshape(1, -1, sample.shape[-1])
    )
    length = max(1, round(rows.shape[-1] / speed))
    resized = torch.nn.functional.interpolate(rows, size=length, mode="linear")[0]
    if processor.settings.features == "log-mel":
        return resized.T
    return resized.reshape(*sample.shape[:-1], length)
