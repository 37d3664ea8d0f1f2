"""Images as tokens and back: order and levels against loops and what is known of the digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.adapters.pixel_processor import PixelSequenceProcessor
from perceiver_io.adapters.pixel_tokens import PixelTokens
from perceiver_io.processor import PerceiverIOProcessor

TOKENS = PixelTokens(size=(2, 3), num_channels=3, num_levels=7, num_special_tokens=3)


def test_order_is_row_then_column_then_channel() -> None:
    levels = torch.randint(7, (2, 3, 2, 3), generator=torch.Generator().manual_seed(0))
    ids = TOKENS.to_ids(levels)
    assert ids.shape == (2, TOKENS.length) == (2, 19) and ids.dtype == torch.int64
    for sample in range(2):
        expected = [2] + [
            3 + int(levels[sample, channel, row, column])
            for row in range(2)
            for column in range(3)
            for channel in range(3)
        ]
        assert ids[sample].tolist() == expected
    assert torch.equal(TOKENS.to_levels(ids), levels)
    assert torch.equal(TOKENS.to_levels(ids[:, :10]), levels[:, :, :1])
    assert TOKENS.to_levels(ids[:, :1]).shape == (2, 3, 0, 3)
    assert torch.equal(TOKENS.to_ids(levels[:, :, :1].to(torch.uint8)), ids[:, :10])
    assert (TOKENS.start_id, TOKENS.vocab_size) == (2, 10)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (torch.zeros(3, 2, 3), "must be \\(batch, 3, rows, 3\\)"),
        (torch.zeros(1, 3, 2, 4, dtype=torch.int64), "must be \\(batch, 3, rows, 3\\)"),
        (torch.zeros(1, 3, 3, 3, dtype=torch.int64), "have 3 rows, more than an image"),
        (torch.zeros(1, 3, 2, 3), "whole numbers from 0 to 6, got torch.float32"),
        (torch.full((1, 3, 2, 3), 7), "from 0 to 6, got 7 to 7"),
        (torch.full((1, 3, 2, 3), -1), "from 0 to 6, got -1 to -1"),
    ],
)
def test_what_are_no_levels(levels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TOKENS.to_ids(levels)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([2, 3, 3], "Got 3 tokens, expected the start token and up to 2 whole rows of 9 each"),
        ([2] + [3] * 27, "Got 28 tokens"),
        ([3] * 10, "must be the start token 2, got \\[3\\]"),
        ([2] * 10, "must be levels, 3 to 9, got 2 to 2"),
        ([2] + [10] * 9, "must be levels, 3 to 9, got 10 to 10"),
    ],
)
def test_what_are_no_images(ids: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TOKENS.to_levels(torch.tensor([ids]))


def test_digits_have_their_seventeen_levels() -> None:
    images = load_digits().images[:50]
    processor = PixelSequenceProcessor(size=(8, 8), num_channels=1, num_levels=17)
    pixels = [np.round(one * (255 / 16)).astype(np.uint8) for one in images]
    levels = processor.to_levels(pixels)
    np.testing.assert_array_equal(levels[:, 0].numpy(), images)
    np.testing.assert_array_equal(processor.to_pixels(levels)[:, 0].numpy(), np.stack(pixels))
    assert processor.prepare(pixels[0]).tolist() == [0, *(1 + images[0].flatten().astype(int)).tolist()]


@pytest.mark.parametrize("num_levels", [2, 3, 17, 100, 256])
def test_each_value_becomes_the_nearest_level(num_levels: int) -> None:
    processor = PixelSequenceProcessor(size=(1, 1), num_levels=num_levels)
    values = torch.arange(256, dtype=torch.uint8)
    found = processor.levels_of_pixels(values)
    grid = np.linspace(0, 255, num_levels)
    distance = np.abs(np.arange(256)[:, None] - grid)
    np.testing.assert_allclose(distance[np.arange(256), found.numpy()], distance.min(1))
    back = processor.to_pixels(found)
    assert (back.int() - values.int()).abs().max() <= 255 / (num_levels - 1) / 2 + 0.5
    assert torch.equal(processor.levels_of_pixels(back), found)


def test_images_of_other_sizes_and_modes_are_those_of_the_image_processor(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (13, 20, 3), dtype=np.uint8))
    picture.save(tmp_path / "picture.png")
    for channels in (1, 3):
        processor = PixelSequenceProcessor(size=(4, 6), num_channels=channels)
        expected = PerceiverIOImageProcessor(size=(4, 6), num_channels=channels).to_uint8([picture])
        for value in (picture, tmp_path / "picture.png", str(tmp_path / "picture.png"), np.asarray(picture)):
            assert torch.equal(processor.to_levels([value]), expected.long())
        (again,) = processor.to_pil(processor.to_levels([picture]))
        assert again.mode == ("L" if channels == 1 else "RGB") and again.size == (6, 4)
        assert torch.equal(processor.to_levels([again]), expected.long())
        assert processor.to_pil(processor.to_levels([picture])[:, :, :2])[0].size == (6, 2)
    stretched = PixelSequenceProcessor(size=(4, 4), do_center_crop=False, resample=0)
    assert not torch.equal(
        stretched.to_levels([picture]), PixelSequenceProcessor(size=(4, 4), resample=0).to_levels([picture])
    )


def test_batches_and_saved_settings(tmp_path: Path) -> None:
    processor = PixelSequenceProcessor(size=(2, 3), num_channels=1, num_levels=5, num_special_tokens=3)
    ids = processor.prepare(np.full((2, 3), 255, np.uint8))
    batch, mask = processor.collate([ids, None])
    assert batch.shape == (2, 7) and batch[0].tolist() == [2] + [7] * 6
    assert mask is not None and mask.tolist() == [[True] * 7, [False] * 7]
    PerceiverIOProcessor({"tokens": processor}).save_pretrained(tmp_path)
    assert PerceiverIOProcessor.from_pretrained(tmp_path).processors == {"tokens": processor}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_levels": 1}, "num_levels is 1, expected 2 to 256"),
        ({"num_levels": 257}, "num_levels is 257"),
        ({"num_channels": 2}, "num_channels is 2"),
        ({"size": (0, 3)}, "size"),
        ({"num_special_tokens": 0}, "num_special_tokens"),
        ({"resample": 9}, "resample is 9"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelSequenceProcessor(**{"size": (2, 3), **settings})


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    processor = PixelSequenceProcessor(size=(2, 3))
    for value, message in (
        (str(tmp_path / "text.png"), "not an image"),
        (str(tmp_path / "missing.png"), "missing"),
        (np.zeros((2, 3, 5), np.uint8), "shape"),
        (np.zeros((2, 3), np.float32), "float32"),
    ):
        with pytest.raises(ValueError, match=message):
            processor.prepare(value)
