"""The video adapter: patches in space and time, positions, masks, and what it refuses."""

from typing import Any

import pytest
import torch
from transformers import PerceiverConfig
from transformers.models.perceiver.modeling_perceiver import PerceiverImagePreprocessor

from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.video import VideoAdapter


def adapter(**fields: Any) -> VideoAdapter:
    return VideoAdapter(
        VideoAdapter.Config(**{"size": (4, 6, 8), "patch_size": (2, 3, 4), "num_bands": 3} | fields)
    )


@pytest.mark.parametrize("size", [(4, 8, 12), (6, 4, 8), (2, 12, 4)])
@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_transformers(size: tuple[int, int, int], frames: int, channels: int) -> None:
    if size[0] == frames:
        size = (2 * frames, *size[1:])  # it drops the time axis of a grid with one step
    reference = PerceiverImagePreprocessor(
        PerceiverConfig(),
        prep_type="patches",
        spatial_downsample=4,
        temporal_downsample=frames,
        in_channels=channels,
        fourier_position_encoding_kwargs={"num_bands": 3, "max_resolution": (4, 2, 3), "concat_pos": True},
    )
    module = adapter(
        size=(4, 8, 12), patch_size=(frames, 4, 4), image_channels=channels, max_resolution=(4, 2, 3)
    )
    video = torch.randn(2, size[0], channels, *size[1:])
    byte_array = module(video)
    torch.testing.assert_close(byte_array.values, reference(video)[0])
    assert byte_array.grid == (size[0] // frames, size[1] // 4, size[2] // 4)
    assert module.num_channels == reference.num_channels
    assert byte_array.num_content_channels == frames * 16 * channels


def test_patches_by_hand() -> None:
    """Patches that are not square: frame, row, column, image channel."""
    video = torch.randn(1, 4, 3, 6, 8)
    byte_array = adapter()(video)
    assert byte_array.grid == (2, 2, 2)
    element = 0
    for t in (0, 2):
        for h in (0, 3):
            for w in (0, 4):
                patch = video[0, t : t + 2, :, h : h + 3, w : w + 4]
                expected = [patch[i, :, j, k] for i in range(2) for j in range(3) for k in range(4)]
                assert torch.equal(byte_array.values[0, element, :72], torch.cat(expected))
                element += 1


def test_width_as_published() -> None:
    module = VideoAdapter(VideoAdapter.Config(size=(16, 224, 224)))
    assert (module.num_content_channels, module.num_channels) == (48, 48 + 3 * 65)
    assert module.position.max_resolution == (16, 56, 56)
    assert not module.state_dict()


def test_an_element_is_real_if_any_of_its_pixels_is() -> None:
    mask = torch.zeros(1, 4, 6, 8, dtype=torch.bool)
    mask[0, 1, 5, 0] = mask[0, 2, 0, 4] = True
    video = torch.randn(1, 4, 3, 6, 8)
    byte_array = adapter()(torch.where(mask[:, :, None], video, torch.nan), mask)
    assert byte_array.mask is not None
    # Patches lie in the order time, row, column, two along each axis.
    assert byte_array.mask[0].nonzero().flatten().tolist() == [0b010, 0b101]
    kept = torch.where(mask[:, :, None], video, 0)
    assert torch.equal(byte_array.values, adapter()(kept).values)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            torch.zeros(1, 3, 4, 6, 8),
            r"must be \(batch, frames, 3, height, width\), got 5 axes: \(1, 3, 4, 6, 8\)\. Channels come after the",
        ),
        (torch.zeros(4, 3, 6, 8), "got 4 axes"),
        (torch.zeros(0, 4, 3, 6, 8), "must not be empty"),
        (
            torch.zeros(1, 4, 3, 6, 8, dtype=torch.uint8),
            r"got torch.uint8\. Pixels are expected in \[0, 1\] or \[-1, 1\]",
        ),
        (
            torch.zeros(1, 3, 3, 6, 8),
            "3x6x8 frames, rows and columns cannot be cut in patches of 2x3x4: pad, crop",
        ),
        (torch.zeros(1, 4, 3, 6, 3), "4x6x3 frames, rows and columns is smaller than a patch of 2x3x4"),
        (torch.full((1, 4, 3, 6, 8), torch.inf), "576 values that are NaN or infinite"),
    ],
)
def test_bad_videos_are_refused(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter()(x)


@pytest.mark.parametrize("mask", [torch.ones(1, 4, 3, 6, 8).bool(), torch.ones(1, 4).bool()])
def test_masks_that_do_not_fit_are_refused(mask: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be bool \(1, 4, 6, 8\), got"):
        adapter()(torch.zeros(1, 4, 3, 6, 8), mask)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": (4, 6, 9)}, "4x6x9 frames, rows and columns cannot be cut in patches of 2x3x4"),
        ({"size": (0, 6, 8)}, r"size must be at least 1, got \(0, 6, 8\)"),
        ({"patch_size": (0, 3, 4)}, r"patch_size must be at least 1, got \(0, 3, 4\)"),
        ({"max_resolution": (2, 2, 0)}, r"max_resolution must be at least 1, got \(2, 2, 0\)"),
        ({"size": (6, 8)}, "size must be"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter(**fields)


def test_convolved_frames_are_convolved_images() -> None:
    config = VideoAdapter.Config(size=(3, 8, 12), features="conv", feature_channels=5, num_bands=2)
    module = VideoAdapter(config).eval()
    video, mask = torch.randn(2, 3, 3, 8, 12), torch.rand(2, 3, 8, 12) < 0.5
    byte_array = module(video, mask)
    assert byte_array.grid == (3, 2, 3) and byte_array.num_content_channels == 5
    image = ImageAdapter(ImageAdapter.Config(size=(8, 12), features="conv", feature_channels=5)).eval()
    image.features.load_state_dict(module.convolution.state_dict())  # type: ignore[union-attr]
    values = byte_array.values.unflatten(1, (3, 6))
    for frame in range(3):
        expected = image(video[:, frame], mask[:, frame])
        torch.testing.assert_close(values[:, frame, :, :5], expected.values[..., :5])
        assert byte_array.mask is not None
        assert torch.equal(byte_array.mask.unflatten(1, (3, 6))[:, frame], expected.mask)
    patches = VideoAdapter(VideoAdapter.Config(size=(3, 8, 12), num_bands=2))(video, mask)
    torch.testing.assert_close(byte_array.values[..., 5:], patches.values[..., 48:])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": "conv"}, r"an element of 1x4x4 pixels, got patch_size=\(2, 3, 4\)"),
        ({"feature_channels": 3}, "feature_channels goes with features='conv'"),
        (
            {"features": "conv", "patch_size": (1, 4, 4), "size": (2, 6, 8)},
            "cannot be cut in patches of 1x4x4",
        ),
    ],
)
def test_bad_settings_of_convolutions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter(**fields)


def test_nominal_positions_stay_where_they_are() -> None:
    video = torch.randn(1, 8, 3, 9, 16)
    nominal = adapter(position_extent="nominal")
    whole = nominal(video).values.unflatten(1, (4, 3, 4))
    for frames, height, width in [(4, 6, 8), (2, 3, 4), (6, 9, 8)]:
        part = nominal(video[:, :frames, :, :height, :width]).values
        expected = whole[:, : frames // 2, : height // 3, : width // 4]
        torch.testing.assert_close(part, expected.flatten(1, 3))
