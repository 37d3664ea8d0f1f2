"""The spectrogram adapter: patches, convolutions, positions, masks, and what it refuses."""

from typing import Any

import numpy as np
import pytest
import torch

from perceiver_io.adapters.spectrogram import FrameConvolutions, SpectrogramAdapter
from perceiver_io.position import FourierPositionEncoding


def adapter(**fields: Any) -> SpectrogramAdapter:
    return SpectrogramAdapter(
        SpectrogramAdapter.Config(**{"size": (8, 6), "patch_size": (2, 3), "num_bands": 3} | fields)
    )


def test_patches_are_cut_from_time_and_frequency() -> None:
    x = torch.randn(2, 12, 6)
    byte_array = adapter()(x)
    assert byte_array.grid == (6, 2)
    assert byte_array.num_content_channels == 6
    for time, frequency in np.ndindex(6, 2):
        patch = x[:, 2 * time : 2 * time + 2, 3 * frequency : 3 * frequency + 3]
        assert torch.equal(byte_array.values[:, 2 * time + frequency, :6], patch.flatten(1))
    # Four patches of time from -1 to 1, and on; two of frequency.
    assert byte_array.values[0, ::2, 6].tolist() == pytest.approx([-1 + 2 * i / 3 for i in range(6)])
    assert byte_array.values[0, :2, 7].tolist() == [-1, 1]
    plain = FourierPositionEncoding(num_bands=3, max_resolution=(4, 2))
    torch.testing.assert_close(byte_array.values[0, :8, 6:], plain((4, 2), like=x))


def test_a_mask_of_frames_is_one_of_all_their_bands() -> None:
    mask = torch.zeros(1, 8, dtype=torch.bool)
    mask[0, 3] = True
    byte_array = adapter()(torch.where(mask[..., None], torch.ones(1, 8, 6), torch.nan), mask)
    assert byte_array.mask is not None
    assert byte_array.mask.unflatten(1, (4, 2)).tolist() == [
        [[False] * 2, [True] * 2, [False] * 2, [False] * 2]
    ]
    assert byte_array.values[0, 2, :6].tolist() == [0.0] * 3 + [1.0] * 3


def test_elements_of_all_bands_have_positions_in_time_alone() -> None:
    byte_array = adapter(patch_size=None)(torch.randn(1, 8, 6))
    assert byte_array.grid == (2, 1)
    assert byte_array.values.shape == (1, 2, 4 * 6 + 2 * 3 + 1)


def test_convolutions_are_those_of_numpy() -> None:
    module = FrameConvolutions(2, 3).double()
    x = torch.randn(1, 12, 2).double()
    frames = x[0].numpy()
    for layer in module.layers:
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()  # (C, F, 5)
        padded = np.pad(frames, ((2, 2), (0, 0)))
        outputs = [
            np.einsum("tf,cft->c", padded[start : start + 5], weight) + bias
            for start in range(0, len(frames), 2)
        ]
        frames = torch.nn.functional.gelu(torch.tensor(np.array(outputs))).numpy()
    assert frames.shape == (3, 3)
    centred = frames - frames.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt(centred.var(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(module(x)[0].detach().numpy(), expected, atol=1e-9)


def test_what_a_convolution_makes_of_masked_frames_reaches_nothing() -> None:
    module = FrameConvolutions(2, 3)
    x, mask = torch.zeros(1, 24, 2), torch.zeros(1, 24, dtype=torch.bool)
    x[:, :12], mask[:, :12] = torch.randn(1, 12, 2), True
    torch.testing.assert_close(module(x, mask)[:, :3], module(x[:, :12]))
    assert not torch.allclose(module(x)[:, :3], module(x[:, :12]))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 7, 6), "The spectrogram of 7x6 frames and bands cannot be cut in patches of 2x3"),
        (torch.zeros(1, 8, 5), r"must be \(batch, frames, 6\), got 3 axes: \(1, 8, 5\)"),
        (torch.zeros(8, 6), "got 2 axes"),
        (torch.zeros(1, 0, 6), "must not be empty"),
        (torch.zeros(1, 8, 6, dtype=torch.int16), "must be floating point, got torch.int16"),
        (torch.full((1, 8, 6), torch.nan), "48 values that are NaN"),
    ],
)
def test_bad_spectrograms_are_refused(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter()(x)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": (9, 6)}, "9x6 frames and bands cannot be cut in patches of 2x3"),
        ({"features": "conv"}, "goes with features='patches'"),
        ({"feature_channels": 4}, "goes with features='conv'"),
        ({"features": "conv", "patch_size": None, "size": (6, 6)}, "cannot be cut in patches of 4x6"),
        ({"size": (0, 6)}, "size must be at least 1"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter(**fields)
