from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.perceiver.image_processing_pil_perceiver import PerceiverImageProcessorPil

from perceiver_io.tasks import image_classification as ic
from perceiver_io.tasks.image_classification.published_processor import (
    from_published_settings,
    published_processor,
    to_published_settings,
)
from perceiver_io.tasks.image_classification.task import ImageClassificationTask

IMAGE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 70, 3), dtype=np.uint8))
# What the published repositories hold.
OLD = {
    "crop_size": 256,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "PerceiverFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 224,
}


def pixels(processor: Any) -> torch.Tensor:
    return processor(IMAGE, return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": {"height": 32, "width": 32}, "crop_size": {"height": 40, "width": 40}},
        {"do_center_crop": False, "size": {"height": 32, "width": 32}},
        {"do_normalize": False, "resample": 2},
        {"do_rescale": False, "image_mean": [100.0, 110.0, 120.0], "image_std": [50.0, 60.0, 70.0]},
    ],
)
def test_the_settings_of_transformers_give_its_pixels(options: dict[str, Any], tmp_path: Path) -> None:
    theirs = PerceiverImageProcessorPil(**options)
    theirs.save_pretrained(tmp_path)
    ours = ImageClassificationTask().load_processor(tmp_path)
    assert isinstance(ours, ic.PerceiverIOImageProcessor)
    torch.testing.assert_close(pixels(ours), pixels(theirs), rtol=1e-5, atol=1e-5)


def test_the_published_files_give_the_default_processor_of_transformers() -> None:
    torch.testing.assert_close(
        pixels(from_published_settings(OLD)), pixels(PerceiverImageProcessorPil()), rtol=0, atol=1e-5
    )


def test_transformers_reads_what_is_written_for_it(tmp_path: Path) -> None:
    ours = ic.PerceiverIOImageProcessor(
        size=48, crop_fraction=0.75, resample=2, image_mean=0.4, image_std=0.3
    )
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(to_published_settings(ours)))
    theirs = PerceiverImageProcessorPil.from_pretrained(tmp_path)
    torch.testing.assert_close(pixels(theirs), pixels(ours), rtol=0, atol=1e-5)
    again = ImageClassificationTask().load_processor(tmp_path)
    assert again.to_dict() == ours.to_dict()


def test_our_own_settings_are_taken_as_they_are(tmp_path: Path) -> None:
    ours = ic.PerceiverIOImageProcessor(size=(30, 20), num_channels=1)
    ours.save_pretrained(tmp_path)
    assert ImageClassificationTask().load_processor(tmp_path).to_dict() == ours.to_dict()


def test_a_new_model_gets_the_published_processor() -> None:
    torch.testing.assert_close(
        pixels(published_processor(ic.config())), pixels(PerceiverImageProcessorPil()), rtol=0, atol=1e-5
    )
    grey = published_processor(ic.config(variant="tiny", size=(8, 8), image_channels=1))
    assert pixels(grey).shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    "settings",
    [
        {**OLD, "do_resize": False},
        {**OLD, "crop_size": {"height": 256, "width": 300}},
        {**OLD, "size": "large"},
        {**OLD, "size": {"shortest_edge": 224}},
        ["no", "object"],
    ],
)
def test_settings_that_ours_cannot_follow(settings: Any) -> None:
    with pytest.raises(ValueError, match=r"size|do_resize|object"):
        from_published_settings(settings)


@pytest.mark.parametrize("options", [{"size": (30, 20)}, {"size": 30, "num_channels": 1}])
def test_processors_that_transformers_lacks(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="square ones of 3 channels"):
        to_published_settings(ic.PerceiverIOImageProcessor(**options))
