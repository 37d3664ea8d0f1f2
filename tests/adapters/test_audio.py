"""The audio adapter: patches of samples, positions, masks, and what it refuses."""

from typing import Any

import pytest
import torch
from transformers import PerceiverConfig
from transformers.models.perceiver.modeling_perceiver import PerceiverAudioPreprocessor

from perceiver_io.adapters.audio import AudioAdapter


def adapter(**fields: Any) -> AudioAdapter:
    return AudioAdapter(
        AudioAdapter.Config(**{"num_samples": 12, "samples_per_patch": 4, "num_bands": 3} | fields)
    )


@pytest.mark.parametrize("num_samples", [4, 12, 40])
def test_agrees_with_transformers(num_samples: int) -> None:
    reference = PerceiverAudioPreprocessor(
        PerceiverConfig(),
        samples_per_patch=4,
        fourier_position_encoding_kwargs={"num_bands": 3, "max_resolution": (12,), "concat_pos": True},
    )
    module = adapter()
    sound = torch.randn(2, num_samples)
    byte_array = module(sound)
    torch.testing.assert_close(byte_array.values, reference(sound)[0])
    assert byte_array.grid == (num_samples // 4,)
    assert byte_array.num_content_channels == 4
    assert byte_array.values.shape[-1] == module.num_channels == reference.num_channels
    without = adapter(include_coordinates=False)
    assert torch.equal(without(sound).values[..., 4:], byte_array.values[..., 5:])
    assert without.num_channels == module.num_channels - 1


def test_highest_band_is_that_of_samples_not_of_patches() -> None:
    """As published: at 30720 samples it has 15360 half periods a unit, though there are 1920 elements only."""
    module = AudioAdapter(AudioAdapter.Config(num_samples=30720))
    assert (module.num_content_channels, module.num_channels) == (16, 16 + 385)
    byte_array = module(torch.zeros(1, 30720))
    coordinates = torch.linspace(-1, 1, 1920, dtype=torch.float64)
    highest = torch.sin(torch.pi * 15360 * coordinates)
    # Phases are up to 48,000 radians, whose float32 is 0.004 apart.
    torch.testing.assert_close(byte_array.values[0, :, 16 + 192].double(), highest, atol=1e-2, rtol=0)
    assert adapter(max_resolution=3).position.max_resolution == (3,)


def test_an_element_is_real_if_any_of_its_samples_is() -> None:
    sound = torch.randn(1, 12)
    mask = torch.zeros(1, 12, dtype=torch.bool)
    mask[0, 7] = True
    byte_array = adapter()(torch.where(mask, sound, torch.nan), mask)
    assert byte_array.mask is not None
    assert byte_array.mask.tolist() == [[False, True, False]]
    assert byte_array.values[0, :, :4].tolist() == [[0.0] * 4, [0.0, 0.0, 0.0, sound[0, 7].item()], [0.0] * 4]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 13), "The sound of 13 samples cannot be cut in patches of 4: pad, crop or resize it"),
        (torch.zeros(1, 3), "The sound of 3 samples is smaller than a patch of 4. Enlarge or pad it"),
        (
            torch.zeros(1, 2, 12),
            r"must be \(batch, samples\), got 3 axes: \(1, 2, 12\)\. Mix several channels",
        ),
        (torch.zeros(12), "got 1 axes"),
        (torch.zeros(0, 12), "must not be empty"),
        (torch.zeros(1, 12, dtype=torch.int16), r"got torch.int16\. Samples are expected in \[-1, 1\]"),
        (torch.full((1, 12), torch.nan), "12 values that are NaN"),
    ],
)
def test_bad_sounds_are_refused(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter()(x)


@pytest.mark.parametrize("mask", [torch.ones(1, 3).bool(), torch.ones(1, 12)])
def test_masks_that_do_not_fit_are_refused(mask: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be bool \(1, 12\), got"):
        adapter()(torch.zeros(1, 12), mask)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_samples": 13}, "13 samples cannot be cut in patches of 4"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"samples_per_patch": 0}, "samples_per_patch must be at least 1, got 0"),
        ({"max_resolution": 0}, "max_resolution must be at least 1, got 0"),
        ({"scale": 0.0}, "scale is 0.0, expected a number above zero"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter(**fields)


def test_samples_of_all_channels_lie_in_a_patch() -> None:
    module = adapter(audio_channels=2)
    sound = torch.randn(2, 2, 12)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[0, 5:] = False
    byte_array = module(sound, mask)
    assert (module.num_content_channels, byte_array.values.shape[1:]) == (8, (3, module.num_channels))
    expected = [[sound[1, channel, 4 + sample] for channel in range(2)] for sample in range(4)]
    assert byte_array.values[1, 1, :8].tolist() == torch.tensor(expected).flatten().tolist()
    assert byte_array.mask is not None and byte_array.mask.tolist() == [[True, True, False], [True] * 3]
    assert not byte_array.values[0, 1, 2:8].any()
    torch.testing.assert_close(byte_array.values[..., 8:], adapter()(sound[:, 0]).values[..., 4:])
    with pytest.raises(ValueError, match=r"must be \(batch, 2, samples\), got 2 axes"):
        module(sound[:, 0])
    with pytest.raises(ValueError, match=r"must be bool \(2, 12\), got torch.bool \(2, 2, 12\)"):
        module(sound, torch.ones(2, 2, 12, dtype=torch.bool))


def test_nominal_positions_stay_where_they_are() -> None:
    sound = torch.randn(1, 40)
    nominal = adapter(position_extent="nominal")
    whole = nominal(sound).values
    for length in (4, 12, 20):
        torch.testing.assert_close(nominal(sound[:, :length]).values, whole[:, : length // 4])
    torch.testing.assert_close(nominal(sound[:, :12]).values, adapter()(sound[:, :12]).values)
    assert whole[0, :, 4].tolist() == [
        -1.0 + place for place in range(10)
    ]  # three patches from -1 to 1, and on
    assert not torch.allclose(adapter()(sound[:, :20]).values, whole[:, :5])


@pytest.mark.parametrize("features", ["patches", "conv"])
def test_scale_is_a_factor_on_the_samples(features: Any) -> None:
    settings: dict[str, Any] = {"num_samples": 64, "num_bands": 2, "features": features}
    torch.manual_seed(0)
    plain = AudioAdapter(AudioAdapter.Config(**settings)).eval()
    scaled = AudioAdapter(AudioAdapter.Config(**settings, scale=8.0)).eval()
    scaled.load_state_dict(plain.state_dict())
    x, mask = torch.randn(2, 64), torch.arange(64) < torch.tensor([[64], [30]])
    torch.testing.assert_close(scaled(x, mask).values, plain(8 * x, mask).values)


def test_convolutions_see_the_neighbours_of_an_element_and_nothing_further() -> None:
    """Strides 3, 2 and 2 over 7, 5 and 5 steps: 7 + 4 * 3 + 4 * 6 samples, 21 of them before the element's first."""
    module = adapter(num_samples=120, samples_per_patch=12, features="conv", feature_channels=8)
    assert module.num_content_channels == 8
    assert [one.stride[0] for one in module.convolutions.convolutions] == [3, 2, 2]
    sound = torch.zeros(1, 120)
    silent = module(sound).values[0, 5, :8]
    for place, changes in ((60 - 22, False), (60 - 21, True), (60 + 21, True), (60 + 22, False)):
        clicked = sound.clone()
        clicked[0, place] = 1
        assert torch.equal(module(clicked).values[0, 5, :8], silent) != changes, place


def test_width_of_features_goes_with_convolutions() -> None:
    with pytest.raises(ValueError, match="feature_channels goes with features='conv'"):
        adapter(feature_channels=8)
