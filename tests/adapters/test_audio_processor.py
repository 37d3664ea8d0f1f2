"""Recordings to what a model hears: against NumPy, scipy-free sines, and the transforms of transformers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoFeatureExtractor
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function
from transformers.pipelines.base import pad_collate_fn

from perceiver_io.adapters.audio_processor import PerceiverIOFeatureExtractor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.media.sound import Sound

RATE = 8000


def sine(seconds: float = 0.5, *, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples.T, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


class Decoder:
    """What `datasets` gives where torchcodec decodes."""

    def get_all_samples(self) -> Any:
        class Samples:
            data = torch.from_numpy(sine())[None]
            sample_rate = RATE

        return Samples()


def test_all_forms_of_a_recording_are_one(tmp_path: Path) -> None:
    extractor = PerceiverIOFeatureExtractor(sampling_rate=RATE)
    samples = sine()
    path = tmp_path / "a.wav"
    path.write_bytes(wav(samples[None]))
    for value in (
        *(Sound(samples[None], RATE), (samples, RATE), {"array": samples, "sampling_rate": RATE}, Decoder()),
        *(path, str(path), path.read_bytes(), {"path": str(path), "bytes": None}),
    ):
        assert torch.equal(extractor.prepare(value), torch.from_numpy(samples))
        assert torch.equal(extractor(value)["input_values"], torch.from_numpy(samples)[None])
    for value in (samples, torch.from_numpy(samples), samples.tolist()):
        assert torch.equal(extractor.prepare(value, sampling_rate=RATE), torch.from_numpy(samples))


def test_another_rate_is_resampled() -> None:
    extractor = PerceiverIOFeatureExtractor(sampling_rate=RATE)
    there = extractor.prepare((sine(rate=44100), 44100))
    assert there.shape == sine().shape
    np.testing.assert_allclose(there[100:-100], sine()[100:-100], atol=2e-3)
    with pytest.raises(ValueError, match="next to no divisor in common"):
        PerceiverIOFeatureExtractor(sampling_rate=16000).prepare((sine(rate=44101), 44101))


def test_a_rate_is_never_guessed() -> None:
    extractor = PerceiverIOFeatureExtractor(sampling_rate=RATE)
    for value in (sine(), sine().tolist(), torch.from_numpy(sine())):
        with pytest.raises(ValueError, match="does not say its rate"):
            extractor.prepare(value)
        with pytest.raises(ValueError, match="does not say its rate"):
            extractor(value)
    with pytest.raises(ValueError, match=r"has the rate 8000\.5"):
        extractor({"array": sine(), "sampling_rate": 8000.5})


def test_channels_are_mixed_down_or_have_to_be_as_many() -> None:
    stereo = np.stack([sine(), sine(hertz=660)])
    mono = PerceiverIOFeatureExtractor(sampling_rate=RATE)
    torch.testing.assert_close(mono.prepare((stereo, RATE)), torch.from_numpy(stereo.mean(0)))
    both = PerceiverIOFeatureExtractor(sampling_rate=RATE, num_channels=2)
    assert torch.equal(both.prepare((stereo, RATE)), torch.from_numpy(stereo))
    with pytest.raises(ValueError, match="has 1 channels, expected 2"):
        both.prepare((sine(), RATE))


def test_batches_are_padded_and_masked() -> None:
    extractor = PerceiverIOFeatureExtractor(sampling_rate=RATE, multiple_of=16)
    batch = extractor([sine(0.5), sine(0.1)], sampling_rate=RATE)
    assert batch["input_values"].shape == batch["attention_mask"].shape == (2, 4000)
    assert batch["attention_mask"].sum(1).tolist() == [4000, 800]
    assert torch.equal(batch["input_values"][1, :800], torch.from_numpy(sine(0.1)))
    one = extractor(sine()[:21], sampling_rate=RATE)
    assert one["attention_mask"].tolist() == [[1] * 21 + [0] * 11]
    assert not one["input_values"][0, 21:].any()
    rows = extractor(np.stack([sine(0.1)] * 3), sampling_rate=RATE, return_tensors="np")
    assert rows["input_values"].shape == (3, 800) and rows["attention_mask"].all()


@pytest.mark.parametrize("features", ["raw", "log-mel"])
def test_pipelines_make_the_batches_that_it_makes_itself(features: str) -> None:
    extractor = PerceiverIOFeatureExtractor(sampling_rate=RATE, features=features, multiple_of=16)
    recordings = [sine(0.1), sine(0.05), sine(0.0213)]
    items = [dict(extractor(one, sampling_rate=RATE)) for one in recordings]
    theirs = pad_collate_fn(None, extractor)(items)
    ours = extractor(recordings, sampling_rate=RATE)
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor)


def test_batches_of_several_channels_are_padded_along_time() -> None:
    extractor = PerceiverIOFeatureExtractor(sampling_rate=RATE, num_channels=2, multiple_of=10)
    short, long = np.stack([sine()[:5]] * 2), np.stack([sine()[:11]] * 2)
    values, mask = extractor.collate([extractor.prepare((one, RATE)) for one in (short, long)])
    assert values.shape == (2, 2, 20)
    assert mask is not None and mask.sum(1).tolist() == [5, 11]
    assert extractor(short, sampling_rate=RATE)["input_values"].shape == (1, 2, 10)


# 120 bands are too narrow for the frequencies of a window: both transform it with zeros beside it.
@pytest.mark.parametrize(("num_bands", "length"), [(12, 256), (120, 512)])
def test_log_mel_frames_are_those_of_transformers(num_bands: int, length: int) -> None:
    extractor = PerceiverIOFeatureExtractor(
        sampling_rate=RATE, features="log-mel", num_mel_bands=num_bands, min_frequency=100
    )
    samples = sine(0.2) + sine(0.2, hertz=1700)
    frames = extractor.prepare((samples, RATE))
    theirs = spectrogram(
        np.append(samples, np.zeros(40, np.float32)),  # the last frame reaches the end
        window_function(200, "hann"),
        frame_length=200,
        hop_length=80,
        fft_length=length,
        power=2.0,
        center=False,
        mel_filters=mel_filter_bank(
            length // 2 + 1, num_bands, 100, RATE / 2, RATE, norm=None, mel_scale="htk"
        ),
    )
    assert frames.shape == (19, num_bands)
    np.testing.assert_allclose(frames.exp(), theirs.T, atol=1e-3, rtol=1e-3)


def test_every_sample_lies_in_a_frame() -> None:
    extractor = PerceiverIOFeatureExtractor(sampling_rate=RATE, features="log-mel", num_mel_bands=8)
    samples = np.zeros(1601, np.float32)
    samples[-1] = 1
    silence = extractor.prepare((np.zeros(1, np.float32), RATE))
    assert silence.shape == (1, 8)
    frames = extractor.prepare((samples, RATE))
    assert torch.equal(frames[:-2], silence.expand(len(frames) - 2, 8))
    assert (frames[-1] > silence).all()


def test_bands_of_channels_stand_side_by_side() -> None:
    settings: dict[str, Any] = {"sampling_rate": RATE, "features": "log-mel", "num_mel_bands": 8}
    both = PerceiverIOFeatureExtractor(num_channels=2, **settings)
    one = PerceiverIOFeatureExtractor(**settings)
    stereo = np.stack([sine(), sine(hertz=900)])
    parts = [one.prepare((channel, RATE)) for channel in stereo]
    torch.testing.assert_close(both.prepare((stereo, RATE)), torch.cat(parts, 1))
    assert both.num_features == 16
    values, mask = both.collate([both.prepare((stereo, RATE)), None])
    assert values.shape == (2, 49, 16) and mask is not None and mask.shape == (2, 49)


def test_recordings_are_scaled_one_by_one() -> None:
    loud, soft = sine(), sine() * 0.01
    peak = PerceiverIOFeatureExtractor(sampling_rate=RATE, normalize="peak")
    assert float(peak.prepare((soft, RATE)).abs().max()) == pytest.approx(1)
    torch.testing.assert_close(peak.prepare((soft, RATE)), peak.prepare((loud, RATE)))
    rms = PerceiverIOFeatureExtractor(sampling_rate=RATE, normalize="rms")
    assert float(rms.prepare((soft, RATE)).square().mean()) == pytest.approx(1, rel=1e-5)
    mel = PerceiverIOFeatureExtractor(sampling_rate=RATE, features="log-mel", normalize="standard")
    frames = mel.prepare((loud, RATE))
    assert abs(float(frames.mean())) < 1e-4 and float(frames.std(correction=0)) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        *({"normalize": how} for how in ("none", "peak", "rms")),
        *({"features": "log-mel", "normalize": how} for how in ("none", "peak", "standard")),
    ],
)
def test_silence_is_no_fault(settings: dict[str, str]) -> None:
    extractor = PerceiverIOFeatureExtractor(sampling_rate=RATE, **settings)
    values = extractor(np.zeros(1000, np.float32), sampling_rate=RATE)["input_values"]
    assert values.isfinite().all() and (values == values[0].flatten()[0]).all()


def test_long_recordings_are_cut_at_their_end() -> None:
    extractor = PerceiverIOFeatureExtractor(sampling_rate=RATE, max_seconds=0.25)
    assert torch.equal(extractor.prepare((sine(), RATE)), torch.from_numpy(sine(0.25)))
    assert len(extractor.prepare((sine(rate=44100), 44100))) == 2000


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(0, np.float32), "empty"),
        (np.full(5, np.nan, np.float32), "NaN or infinite at sample 0"),
        (np.array([0.0, np.inf]), "NaN or infinite at sample 1"),
        (np.zeros(5, np.int16), "divide 16-bit ones by 32768"),
        (np.zeros((100, 2), np.float32), "Turn it around"),
        (np.zeros((2, 2, 9), np.float32), r"has the shape \(2, 2, 9\)"),
        ([[0.0], [0.0, 1.0]], "expected a recording"),
        ({"array": np.zeros(3)}, "must have `array` and `sampling_rate`"),
        (b"no sound", "not a sound"),
        (None, "type|expected a recording"),
    ],
)
def test_what_is_no_recording_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerceiverIOFeatureExtractor(sampling_rate=RATE).prepare(value, sampling_rate=RATE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_rate": 8000}, "unknown keys"),
        ({"sampling_rate": 0}, "sampling_rate"),
        ({"sampling_rate": "8000"}, "must be int"),
        ({"normalize": "standard"}, "for log-mel features"),
        ({"hop_ms": 30}, "no longer than the window"),
        ({"max_frequency": 9000}, "half the sampling rate"),
        ({"min_frequency": 5000, "max_frequency": 4000}, "rising"),
        ({"features": "mfcc"}, "one of 'raw', 'log-mel'"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerceiverIOFeatureExtractor(**settings)


def test_it_is_saved_and_the_auto_class_loads_it(tmp_path: Path) -> None:
    AutoFeatureExtractor.register(PerceiverIOConfig, PerceiverIOFeatureExtractor, exist_ok=True)
    extractor = PerceiverIOFeatureExtractor(sampling_rate=RATE, features="log-mel", max_frequency=3000.0)
    extractor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved == extractor.to_dict() and saved["sampling_rate"] == RATE
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(loaded) is PerceiverIOFeatureExtractor and loaded.to_dict() == extractor.to_dict()
    assert PerceiverIOFeatureExtractor.from_dict(extractor.to_dict()).settings == extractor.settings
    assert PerceiverIOFeatureExtractor.from_pretrained(tmp_path, multiple_of=4).settings.multiple_of == 4
