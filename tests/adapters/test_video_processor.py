"""Videos to frames of one number and size: against the image processor, frame by frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoVideoProcessor

from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.adapters.video_processor import PerceiverIOVideoProcessor
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.media.video_writer import write_video

SMALL: dict[str, Any] = {"num_frames": 4, "size": (8, 6)}


def video(num_frames: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, 20, 30, 3), dtype=np.uint8)


def test_frames_are_those_of_the_image_processor() -> None:
    processor = PerceiverIOVideoProcessor(**SMALL)
    there = processor.prepare(video())
    images = PerceiverIOImageProcessor(size=(8, 6))(video()[[1, 4, 7, 10]])["pixel_values"]
    assert torch.equal(there, images)
    assert there.shape == (4, 3, 8, 6) and -1 <= there.min() < there.max() <= 1
    grey = PerceiverIOVideoProcessor(num_channels=1, **SMALL).prepare(video())
    assert grey.shape == (4, 1, 8, 6)


def test_all_forms_of_a_video_are_one() -> None:
    processor = PerceiverIOVideoProcessor(**SMALL)
    expected = processor.prepare(video())
    tensor = torch.from_numpy(video()).permute(0, 3, 1, 2)
    for value in (tensor, list(video()), [Image.fromarray(frame) for frame in video()]):
        assert torch.equal(processor.prepare(value), expected)
        assert torch.equal(processor(value)["pixel_values"], expected[None])
    grey = video()[..., 0]
    assert torch.equal(processor.prepare(grey), processor.prepare(np.stack([grey] * 3, -1)))


def test_files_are_videos_too(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    levels = np.arange(8, dtype=np.uint8) * 30
    write_video(path, np.broadcast_to(levels[:, None, None, None], (8, 32, 32, 3)))
    processor = PerceiverIOVideoProcessor(**SMALL)
    for value in (path, str(path), path.read_bytes(), {"path": str(path), "bytes": None}):
        there = processor(value)["pixel_values"]
        assert there.shape == (1, 4, 3, 8, 6)
        np.testing.assert_allclose(there.mean((0, 2, 3, 4)), levels[1::2] / 127.5 - 1, atol=0.05)


def test_fewer_frames_are_filled_up_and_masked() -> None:
    processor = PerceiverIOVideoProcessor(**SMALL)
    batch = processor([video(2), video(9)])
    values, mask = batch["pixel_values"], batch["pixel_mask"]
    assert values.shape == (2, 4, 3, 8, 6) and mask.shape == (2, 4, 8, 6)
    assert mask[0, :2].all() and not mask[0, 2:].any() and mask[1].all()
    assert torch.equal(values[0, :2], processor.prepare(video(2))) and not values[0, 2:].any()
    assert "pixel_mask" not in processor(video(9))
    assert processor(video(2))["pixel_values"].shape[1] == 4
    _, mask = processor.collate([None, processor.prepare(video())])
    assert mask is not None and not mask[0].any()


def test_pipelines_may_ask_for_another_number_of_frames() -> None:
    processor = PerceiverIOVideoProcessor(**SMALL)
    there = processor(video(), num_frames=3, do_sample_frames=True, return_tensors="pt").to(torch.float32)
    assert torch.equal(
        there["pixel_values"][0], PerceiverIOVideoProcessor(num_frames=3, size=(8, 6)).prepare(video())
    )
    with pytest.raises(ValueError, match="always sampled"):
        processor(video(), do_sample_frames=False)


def test_it_is_saved_and_the_auto_class_loads_it(tmp_path: Path) -> None:
    AutoVideoProcessor.register(
        PerceiverIOConfig, video_processor_classes={"torchvision": PerceiverIOVideoProcessor}, exist_ok=True
    )
    processor = PerceiverIOVideoProcessor(image_mean=(0.1, 0.2, 0.3), **SMALL)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    assert saved == processor.to_dict() and saved["size"] == [8, 6]
    loaded = AutoVideoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is PerceiverIOVideoProcessor and loaded.settings == processor.settings
    assert PerceiverIOVideoProcessor.from_pretrained(tmp_path, num_frames=2).settings.num_frames == 2
    assert PerceiverIOVideoProcessor.from_dict(processor.to_dict()).settings == processor.settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 3}, "unknown keys"),
        ({"num_frames": 0}, "num_frames"),
        ({"size": (0, 3)}, "size"),
        ({"num_channels": 2}, "num_channels=2"),
        ({"image_std": 0.0}, "image_std"),
        ({"image_mean": (0.1, 0.2)}, "one per channel"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerceiverIOVideoProcessor(**settings)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (video(0), "no frames"),
        ([], "no frames"),
        (video()[0, :, :, 0], r"has the shape \(20, 30\)"),
        (video().astype(np.float32), "expected uint8"),
        ("gone.mp4", "gone.mp4 is missing"),
        (b"no video", "cannot be decoded"),
        (3, "expected a video"),
        ([None], "not an image"),
    ],
)
def test_what_is_no_video_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerceiverIOVideoProcessor(**SMALL).prepare(value)
