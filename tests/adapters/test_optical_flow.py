"""The frame-pair adapter: neighbourhoods, both frames, positions, masks, and what it refuses."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PerceiverConfig
from transformers.models.perceiver.modeling_perceiver import PerceiverImagePreprocessor

from perceiver_io.adapters.optical_flow import FramePairAdapter, neighbourhoods


def adapter(**fields: Any) -> FramePairAdapter:
    return FramePairAdapter(
        FramePairAdapter.Config(**{"size": (4, 6), "feature_channels": 5, "num_bands": 3} | fields)
    )


@settings(max_examples=20)
@given(
    side=st.sampled_from([1, 3, 5]),
    channels=st.integers(1, 3),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
)
def test_neighbourhoods_by_hand(side: int, channels: int, height: int, width: int) -> None:
    """Frame, row, column, channel: with a loop over pixels and over their neighbours."""
    frames = torch.arange(1.0, 2 * channels * height * width + 1).reshape(1, 2, channels, height, width)
    found = neighbourhoods(frames, side)
    assert found.shape == (1, height * width, 2 * side**2 * channels)
    offsets = range(-(side // 2), side // 2 + 1)
    for row in range(height):
        for column in range(width):
            expected: list[float] = []
            for frame in range(2):
                for i in offsets:
                    for j in offsets:
                        inside = 0 <= row + i < height and 0 <= column + j < width
                        for channel in range(channels):
                            expected.append(
                                frames[0, frame, channel, row + i, column + j].item() if inside else 0.0
                            )
            assert found[0, row * width + column].tolist() == expected


@pytest.mark.parametrize("size", [(4, 6), (7, 5), (1, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_transformers(size: tuple[int, int], channels: int) -> None:
    """It takes neighbourhoods that were extracted before, here with `unfold`."""
    reference = PerceiverImagePreprocessor(
        PerceiverConfig(),
        prep_type="patches",
        spatial_downsample=1,
        temporal_downsample=2,
        conv_after_patching=True,
        conv_after_patching_in_channels=18 * channels,
        out_channels=5,
        fourier_position_encoding_kwargs={"num_bands": 3, "max_resolution": (4, 6), "concat_pos": True},
    )
    module = adapter(image_channels=channels)
    module.projection.load_state_dict(reference.conv_after_patches.state_dict())
    frames = torch.randn(2, 2, channels, *size)
    # unfold has the image channel outermost, the release innermost.
    unfolded = torch.nn.functional.unfold(frames.flatten(0, 1), kernel_size=3, padding=1)
    patches = unfolded.reshape(2, 2, channels, 9, *size).transpose(2, 3).reshape(2, 2, 9 * channels, *size)
    byte_array = module(frames)
    torch.testing.assert_close(byte_array.values, reference(patches)[0])
    assert byte_array.grid == size
    assert byte_array.num_content_channels == 5
    assert byte_array.values.shape[-1] == module.num_channels == 5 + 2 * 7


def test_defaults_are_as_published() -> None:
    module = FramePairAdapter(FramePairAdapter.Config(size=(368, 496)))
    assert {name: tuple(value.shape) for name, value in module.state_dict().items()} == {
        "projection.weight": (64, 54),
        "projection.bias": (64,),
    }
    assert (module.num_channels, module.num_content_channels) == (322, 64)
    assert module.position.max_resolution == (368, 496)


def test_masked_pixels_are_zeros_to_their_neighbours() -> None:
    mask = torch.ones(1, 4, 6, dtype=torch.bool)
    mask[0, 1, 2] = False
    frames = torch.randn(1, 2, 3, 4, 6)
    module = adapter()
    byte_array = module(frames.masked_fill(~mask[:, None, None], torch.inf), mask)
    assert torch.equal(byte_array.values, module(frames * mask[:, None, None]).values)
    assert byte_array.mask is not None
    assert (~byte_array.mask).nonzero().tolist() == [[0, 1 * 6 + 2]]


def test_frames_are_told_apart() -> None:
    frames = torch.randn(1, 2, 3, 4, 6)
    module = adapter()
    assert not torch.allclose(module(frames).values, module(frames.flip(1)).values)


def test_convolutions_see_both_frames_side_by_side() -> None:
    """What an image adapter makes of one image with the channels of both."""
    from perceiver_io.adapters.image import ImageAdapter

    of_stem = {
        "features": "conv_stem",
        "feature_channels": 6,
        "num_convolutions": 2,
        "num_residual_convolutions": 1,
    }
    module = adapter(**of_stem, size=(8, 12))
    reference = ImageAdapter(ImageAdapter.Config(size=(8, 12), image_channels=6, num_bands=3, **of_stem))
    assert module.stem is not None
    reference.features.load_state_dict(module.stem.state_dict())
    frames = torch.randn(2, 2, 3, 9, 12)
    mask = torch.ones(2, 9, 12, dtype=torch.bool)
    mask[1, 4:] = False
    found, expected = module(frames, mask), reference(frames.flatten(1, 2), mask)
    assert torch.equal(found.values, expected.values) and torch.equal(found.mask, expected.mask)
    assert found.grid == expected.grid == (3, 3)
    assert found.num_content_channels == 6 and found.values.shape[-1] == module.num_channels


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            torch.zeros(1, 3, 3, 4, 6),
            r"must be \(batch, 2, 3, height, width\), got 5 axes: \(1, 3, 3, 4, 6\)\. Make a pair of two frames of "
            r"one size with torch\.stack",
        ),
        (torch.zeros(1, 1, 3, 4, 6), r"got 5 axes: \(1, 1, 3, 4, 6\)"),
        (torch.zeros(1, 2, 4, 6, 3), r"got 5 axes: \(1, 2, 4, 6, 3\)"),
        (torch.zeros(2, 3, 4, 6), "got 4 axes"),
        (torch.zeros(1, 2, 3, 0, 6), "must not be empty"),
        (
            torch.zeros(1, 2, 3, 4, 6, dtype=torch.uint8),
            r"floating point, got torch.uint8\. Pixels are expected in \[-1, 1\]",
        ),
        (torch.full((1, 2, 3, 4, 6), torch.nan), "144 values that are NaN"),
    ],
)
def test_bad_frames_are_refused(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter()(x)


@pytest.mark.parametrize("mask", [torch.ones(1, 2, 4, 6).bool(), torch.ones(1, 6, 4).bool()])
def test_masks_that_do_not_fit_are_refused(mask: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be bool \(1, 4, 6\), got"):
        adapter()(torch.zeros(1, 2, 3, 4, 6), mask)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"neighbourhood": 2}, "neighbourhood must be odd, so that it has a middle, got 2"),
        ({"neighbourhood": -1}, "neighbourhood must be at least 1, got -1"),
        ({"size": (0, 4)}, r"size must be at least 1, got \(0, 4\)"),
        ({"feature_channels": 0}, "feature_channels must be at least 1"),
        ({"neighbourhood": 5, "features": "conv_stem", "feature_channels": 4}, "whose convolutions are 3x3"),
        ({"num_residual_convolutions": 2}, "num_residual_convolutions 2 and matching_radius 0 go with"),
        ({"num_residual_convolutions": -1}, "num_residual_convolutions must be at least 0, got -1"),
        ({"features": "conv_stem", "feature_channels": 5}, "5 cannot be halved 1 times"),
        ({"matching_radius": 2}, "matching_radius 2 go with features='conv_stem'"),
        ({"features": "conv_stem", "matching_radius": -1}, "matching_radius must be at least 0, got -1"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter(**fields)
