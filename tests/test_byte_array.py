"""Byte arrays, and packing several into one."""

from typing import Any

import pytest
import torch

from perceiver_io import ByteArray
from perceiver_io.byte_array import ByteArrayPacker


def byte_array(batch_size: int, num_elements: int, num_channels: int, **fields: Any) -> ByteArray:
    values = torch.randn(batch_size, num_elements, num_channels)
    return ByteArray(**{"values": values, "num_content_channels": num_channels} | fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"values": torch.zeros(2, 3)}, r"must be \(B, M, C\), got the shape \(2, 3\)"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, r"must be \(2, 6\) \(B, M\), got \(2, 4\)"),
        ({"mask": torch.ones(2, 6)}, "must be bool"),
        ({"grid": (2, 2)}, r"grid \(2, 2\) has 4 elements, the values 6"),
        ({"num_content_channels": 6}, "between 0 and 5, got 6"),
        ({"num_content_channels": -1}, "between 0 and 5, got -1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        byte_array(2, 6, 5, **fields)


def test_one_input_alone_passes_unchanged() -> None:
    packer = ByteArrayPacker({"image": 5})
    image = byte_array(2, 6, 5, grid=(2, 3))
    packed, segments = packer({"image": image})
    assert packed is image
    assert packer.num_channels == 5
    assert list(packer.parameters()) == []
    assert (segments["image"].start, segments["image"].length, segments["image"].grid) == (0, 6, (2, 3))


def test_several_inputs_are_widened_and_joined_by_name() -> None:
    packer = ByteArrayPacker({"video": 5, "audio": 3}, min_padding=2)
    audio = byte_array(2, 4, 3, num_content_channels=1)
    video = byte_array(2, 6, 5, grid=(2, 3), num_content_channels=2)
    packed, segments = packer({"video": video, "audio": audio})
    assert packer.num_channels == 7
    assert packed.values.shape == (2, 10, 7)
    assert packed.mask is None
    torch.testing.assert_close(packed.values[:, :4, :3], audio.values)
    torch.testing.assert_close(packed.values[:, 4:, :5], video.values)
    for name, part in (("audio", packed.values[:, :4, 3:]), ("video", packed.values[:, 4:, 5:])):
        torch.testing.assert_close(part, packer.padding[name]().expand(*part.shape))
    assert list(segments) == ["audio", "video"]
    assert (segments["video"].start, segments["video"].length) == (4, 6)
    assert (segments["video"].grid, segments["video"].num_content_channels) == ((2, 3), 2)


def test_every_input_has_padding_of_its_own() -> None:
    packer = ByteArrayPacker({"a": 4, "b": 4})
    packed, _ = packer({"a": byte_array(1, 1, 4), "b": byte_array(1, 1, 4)})
    assert packed.values[0, 0, 4] != packed.values[0, 1, 4]


def test_masks_are_joined_and_missing_ones_are_true() -> None:
    packer = ByteArrayPacker({"a": 2, "b": 3})
    mask = torch.tensor([[True, False, True]])
    packed, _ = packer({"a": byte_array(1, 2, 2), "b": byte_array(1, 3, 3, mask=mask)})
    assert packed.mask is not None
    assert packed.mask.tolist() == [[True, True, True, False, True]]


def test_an_absent_input_is_left_out() -> None:
    packer = ByteArrayPacker({"a": 2, "b": 3})
    packed, segments = packer({"b": byte_array(1, 3, 3)})
    assert packed.values.shape == (1, 3, 4)
    assert list(segments) == ["b"]
    assert segments["b"].start == 0


def test_no_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one input"):
        ByteArrayPacker({})
