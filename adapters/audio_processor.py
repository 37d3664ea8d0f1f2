"""Recordings to samples or log-mel frames: the feature extractor that is saved beside a model.

Shape legend: B batch, F channels of a recording, S samples, T time frames, J mel bands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, FeatureExtractionMixin

from perceiver_io.adapters.log_mel import log_mel
from perceiver_io.budget import most_decoded_bytes
from perceiver_io.component import ComponentConfig
from perceiver_io.extras import require
from perceiver_io.input_tools import check_finite, check_plain, check_positive
from perceiver_io.media.sound import Sound, read_sound
from perceiver_io.media.source import is_source
from perceiver_io.ragged import pad_ragged
from perceiver_io.registry import register_processor

__all__ = ["AudioSettings", "PerceiverIOFeatureExtractor"]

# What transformers writes into a preprocessor_config.json beside the settings.
_SERVICE_KEYS = {"auto_map", "feature_extractor_type", "processor_class"}
# Rates without a common divisor need a filter for each pair of samples of a second: gigabytes. These are the bytes for
# each weight of a filter, and the weights at its sides.
_FILTER_BYTES, _FILTER_MARGIN = 40, 14
# A standard deviation of logarithms that is rounding.
_CONSTANT = 1e-4


@dataclass(frozen=True, kw_only=True)
class AudioSettings(ComponentConfig):
    """Settings of `PerceiverIOFeatureExtractor`.

    Attributes:
        sampling_rate: Samples a second; recordings of another rate are resampled.
        num_channels: 1 mixes all channels down to their mean. Any other number takes recordings of just as many: a
            mono recording is no stereo one.
        features: "raw" gives samples, "log-mel" the logarithm of the power in bands of frequencies, frame by frame.
        num_mel_bands: J, bands from the lowest frequency to the highest, equally wide on the mel scale.
        window_ms: Length of a time frame in milliseconds.
        hop_ms: From the start of one time frame to that of the next, in milliseconds; no longer than a frame.
        min_frequency: Where the lowest band begins, in hertz.
        max_frequency: Where the highest band ends; at half the sampling rate if None.
        normalize: "peak" and "rms" scale the samples of each recording to a largest, or root mean square, value of 1;
            "standard" scales its log-mel frames to a mean of 0 and a standard deviation of 1. Silence stays silent,
            and a constant becomes 0.
        multiple_of: Batches are padded to a multiple of so many samples or time frames: those of a patch.
        max_seconds: Longer recordings are cut at their end; none are if None.
    """

    sampling_rate: int = 16000
    num_channels: int = 1
    features: Literal["raw", "log-mel"] = "raw"
    num_mel_bands: int = 64
    window_ms: float = 25.0
    hop_ms: float = 10.0
    min_frequency: float = 0.0
    max_frequency: float | None = None
    normalize: Literal["none", "peak", "rms", "standard"] = "none"
    multiple_of: int = 1
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "sampling_rate", "num_channels", "num_mel_bands", "multiple_of")
        if self.max_seconds is not None and self.max_seconds * self.sampling_rate < 1:
            raise ValueError(f"max_seconds is {self.max_seconds}, expected time for one sample or more.")
        if self.normalize == "standard" and self.features == "raw":
            raise ValueError(
                'normalize="standard" is for log-mel features. Choose "peak" or "rms" for raw ones.'
            )
        if not 1 <= self.hop <= self.window:
            raise ValueError(
                f"hop_ms is {self.hop_ms} and window_ms is {self.window_ms} at {self.sampling_rate} Hz, expected at "
                "least one sample and a hop no longer than the window: what lies between windows would be lost."
            )
        if not 0 <= self.min_frequency < self.highest_frequency <= self.sampling_rate / 2:
            raise ValueError(
                f"min_frequency is {self.min_frequency} and max_frequency is {self.max_frequency}, expected rising "
                f"frequencies from 0 to {self.sampling_rate / 2:g} Hz, half the sampling rate."
            )

    @property
    def window(self) -> int:
        """Samples of a time frame."""
        return round(self.window_ms * self.sampling_rate / 1000)

    @property
    def hop(self) -> int:
        """Samples from the start of one time frame to that of the next."""
        return round(self.hop_ms * self.sampling_rate / 1000)

    def num_frames(self, num_samples: int) -> int:
        """Returns how many time frames there are of so many samples: each sample lies in one."""
        return 1 + -(-max(num_samples - self.window, 0) // self.hop)

    @property
    def highest_frequency(self) -> float:
        """Where the highest band ends, in hertz."""
        return self.sampling_rate / 2 if self.max_frequency is None else self.max_frequency


@register_processor("audio")
class PerceiverIOFeatureExtractor(FeatureExtractionMixin):
    """Turns recordings of any length and rate into samples, or log-mel frames, of one rate.

    Mono samples are (S,), those of several channels (F, S). Log-mel frames are (T, J), with the bands of one channel
    after those of another. Each sample lies in a frame: the last one may reach beyond the end, into silence.

    Args:
        **settings: As `AudioSettings`.

    Raises:
        ValueError: A setting is unknown or out of range.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012 - transformers declares it so
    # What pipelines of transformers pad batches with.
    padding_value = 0.0
    padding_side = "right"

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        fields = {name: value for name, value in settings.items() if name not in _SERVICE_KEYS}
        self.settings = AudioSettings.from_dict(fields)

    @property
    def sampling_rate(self) -> int:
        """Samples a second of what the model gets."""
        return self.settings.sampling_rate

    @property
    def num_features(self) -> int:
        """Channels of raw samples, or bands of a log-mel frame, those of all channels."""
        bands = self.settings.num_mel_bands if self.settings.features == "log-mel" else 1
        return self.settings.num_channels * bands

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings, as JSON values."""
        return {"feature_extractor_type": type(self).__name__, **self.settings.to_dict()}

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Builds a feature extractor from what `to_dict` returned.

        Args:
            feature_extractor_dict: The settings.
            **kwargs: Settings that replace them; others are left to the caller.

        Raises:
            ValueError: A setting is unknown, out of range or of a wrong type.
        """
        return super().from_dict(dict(feature_extractor_dict), **kwargs)

    def __call__(
        self, raw_speech: Any, sampling_rate: int | None = None, *, return_tensors: str | None = "pt"
    ) -> BatchFeature:
        """Prepares one recording or several, and makes a batch of them.

        Args:
            raw_speech: A recording as `prepare` takes it, or a list of them. An array or a tensor with one axis more
                than what the model gets is a batch, too: (B, S) for mono.
            sampling_rate: The rate of recordings that do not say theirs: arrays, tensors and lists of numbers.
            return_tensors: "pt" for PyTorch, "np" or None for NumPy.

        Returns:
            `input_values`, and `attention_mask`, 1 where they are real.

        Raises:
            ValueError: As `prepare`, or there are no recordings.
        """
        recordings = self._as_list(raw_speech)
        if not recordings:
            raise ValueError("Got no recordings, expected one or more.")
        samples = [self.prepare(one, sampling_rate=sampling_rate) for one in recordings]
        values, mask = self.collate(samples)
        if mask is None:
            mask = torch.ones((len(samples), values.shape[1 + self._time_axis]), dtype=torch.bool)
        return BatchFeature(
            {"input_values": values.numpy(), "attention_mask": mask.long().numpy()},
            tensor_type=return_tensors,
        )

    def prepare(self, value: Any, *, sampling_rate: int | None = None) -> Tensor:
        """Returns the samples or log-mel frames of one recording.

        Args:
            value: A `Sound`; a file: a path, bytes, or a mapping of `path` and `bytes`; a mapping of `array` and
                `sampling_rate`, as `datasets` decodes sounds; a decoder of torchcodec; or floating-point samples (S,)
                or (F, S), alone or in a pair with their rate.
            sampling_rate: The rate of samples that do not say theirs. It is never guessed.

        Returns:
            (S,), (F, S) or (T, J), float32.

        Raises:
            ValueError: The recording is empty, damaged, NaN or infinite, has another number of channels, does not say
                its rate, or is none.
        """
        samples_FS, rate = _samples_and_rate(value, sampling_rate)
        samples_FS = _resampled(self._mixed(samples_FS), rate, self.sampling_rate)
        if self.settings.max_seconds is not None:
            samples_FS = samples_FS[:, : round(self.settings.max_seconds * self.sampling_rate)]
        if self.settings.normalize == "peak":
            samples_FS = _divided(samples_FS, samples_FS.abs().max())
        elif self.settings.normalize == "rms":
            samples_FS = _divided(samples_FS, samples_FS.square().mean().sqrt())
        if self.settings.features == "raw":
            return samples_FS[0] if self.settings.num_channels == 1 else samples_FS
        frames_TJ = log_mel(
            samples_FS,
            sampling_rate=self.sampling_rate,
            window=self.settings.window,
            hop=self.settings.hop,
            num_bands=self.settings.num_mel_bands,
            min_frequency=self.settings.min_frequency,
            max_frequency=self.settings.highest_frequency,
        )
        if self.settings.normalize == "standard":
            frames_TJ = frames_TJ - frames_TJ.mean()
            frames_TJ = _divided(frames_TJ, frames_TJ.std(correction=0), least=_CONSTANT)
        return frames_TJ

    def collate(self, samples: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """Makes a batch of samples, padded with 0 to a multiple of `multiple_of`, and its mask (B, S) or (B, T)."""
        return pad_ragged(samples, axes=(self._time_axis,), multiples=(self.settings.multiple_of,))

    @property
    def _time_axis(self) -> int:
        return int(self.settings.features == "raw" and self.settings.num_channels > 1)

    def _as_list(self, recordings: Any) -> list[Any]:
        if isinstance(recordings, (np.ndarray, Tensor)):
            rank = 1 if self.settings.num_channels == 1 else 2
            return list(recordings) if recordings.ndim == rank + 1 else [recordings]
        if not isinstance(recordings, (list, tuple)) or _is_pair(recordings):
            return [recordings]
        is_one = bool(recordings) and all(isinstance(number, (int, float)) for number in recordings)
        return [recordings] if is_one else list(recordings)

    def _mixed(self, samples_FS: Tensor) -> Tensor:
        """Returns samples of as many channels as the model gets."""
        expected, found = self.settings.num_channels, len(samples_FS)
        if expected == 1:
            return samples_FS.mean(0, keepdim=True)
        if found != expected:
            raise ValueError(
                f"The recording has {found} channels, expected {expected}. Set num_channels=1 to mix all recordings "
                "down to mono, or leave it out."
            )
        return samples_FS


def _samples_and_rate(value: Any, rate: int | None) -> tuple[Tensor, int]:
    """Returns the samples (F, S) of whatever stands for a recording, checked, and their rate."""
    if is_source(value):
        value = read_sound(value)
    if isinstance(value, Sound):
        samples, rate = value.samples, value.sample_rate
    elif isinstance(value, Mapping):
        if not {"array", "sampling_rate"} <= set(value):
            raise ValueError(
                f"A recording that is a mapping must have `array` and `sampling_rate`, or `path` or `bytes`, got "
                f"{sorted(map(str, value))}."
            )
        samples, rate = value["array"], value["sampling_rate"]
    elif hasattr(
        value, "get_all_samples"
    ):  # a decoder of torchcodec, which is imported only where it is used
        decoded = value.get_all_samples()
        samples, rate = decoded.data, decoded.sample_rate
    elif _is_pair(value):
        samples, rate = value
    else:
        samples = value
    if rate is None:
        raise ValueError(
            "The recording does not say its rate. Give sampling_rate, or a pair of the samples and their rate."
        )
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)) or rate < 1:
        raise ValueError(f"The recording has the rate {rate!r}, expected a whole number of samples a second.")
    return _checked(samples), int(rate)


def _is_pair(value: Any) -> bool:
    """Whether a value is samples and their rate."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[1], (int, np.integer))
        and not isinstance(value[0], (int, float))
    )


def _checked(samples: Any) -> Tensor:
    """Returns samples as (F, S) float32."""
    if not isinstance(samples, Tensor):
        try:
            samples = torch.from_numpy(np.array(samples))
        except (TypeError, ValueError) as error:
            raise ValueError(f"Got {type(samples).__name__}, expected a recording: {error}.") from error
    check_plain(samples, name="The recording", device=None)
    samples = samples.detach().cpu()
    if not samples.is_floating_point():
        raise ValueError(
            f"The recording has samples of type {samples.dtype}, expected floating-point ones from -1 to 1: divide "
            "16-bit ones by 32768."
        )
    samples = samples[None] if samples.ndim == 1 else samples
    if samples.ndim != 2:
        raise ValueError(
            f"The recording has the shape {tuple(samples.shape)}, expected (samples,) or (channels, samples)."
        )
    if not samples.numel():
        raise ValueError("The recording is empty, expected one sample or more. Leave it out.")
    if len(samples) > samples.shape[1] > 1:
        raise ValueError(
            f"The recording has {len(samples)} channels of {samples.shape[1]} samples, expected (channels, samples). "
            "Turn it around."
        )
    samples = samples.float()
    if not samples.isfinite().all():
        place = int((~samples.isfinite()).any(0).nonzero()[0])
        raise ValueError(f"The recording is NaN or infinite at sample {place}. Repair it, or leave it out.")
    check_finite(samples, name="The recording")
    return samples


def _resampled(samples_FS: Tensor, rate: int, wanted: int) -> Tensor:
    if rate == wanted:
        return samples_FS
    most = most_decoded_bytes()
    weights = math.prod(one // math.gcd(rate, wanted) + _FILTER_MARGIN for one in (rate, wanted))
    if _FILTER_BYTES * weights > most:
        raise ValueError(
            f"The recording has {rate} samples a second, which have next to no divisor in common with {wanted}: "
            "resample it to a usual rate first."
        )
    size = -(-samples_FS.shape[1] * wanted // rate)
    if len(samples_FS) * size * samples_FS.itemsize > most:
        raise ValueError(
            f"The recording is too long: at {wanted} samples a second it has {size:,} of them, in {len(samples_FS)} "
            f"channels, and at most {most:,} bytes are made of a file. Cut it in pieces."
        )
    resampled: Tensor = require("torchaudio.functional", extra="audio").resample(samples_FS, rate, wanted)
    return resampled


def _divided(values: Tensor, scale: Tensor, *, least: float = 0.0) -> Tensor:
    """Divides by a scale; where there is next to none, nothing is left."""
    return values / scale if scale > least else torch.zeros_like(values)
