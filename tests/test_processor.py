"""The processor of models with any named inputs: batches, files, and what AutoProcessor finds in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoProcessor, AutoVideoProcessor

from perceiver_io.adapters.audio_processor import PerceiverIOFeatureExtractor
from perceiver_io.adapters.cloud_processor import PointCloudProcessor
from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.adapters.table_processor import TableProcessor
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.adapters.text_processor import ByteTextProcessor
from perceiver_io.adapters.video_processor import PerceiverIOVideoProcessor
from perceiver_io.config import EncoderConfig, PerceiverIOConfig
from perceiver_io.input_processor import InputProcessor
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.registry import PROCESSORS
from perceiver_io.vector_decoders import ClassificationDecoder

RNG = np.random.default_rng(0)
VALUES: dict[str, Any] = {
    "audio": (RNG.normal(size=50).astype(np.float32), 8000),
    "cloud": RNG.normal(size=(7, 3)),
    "image": RNG.integers(0, 256, (9, 9, 3), np.uint8),
    "table": {"age": 3, "sex": "m"},
    "text": "Grüße",
    "video": RNG.integers(0, 256, (3, 9, 9, 3), np.uint8),
}


def mixture() -> PerceiverIOProcessor:
    return PerceiverIOProcessor(
        {
            "audio": PerceiverIOFeatureExtractor(sampling_rate=8000, multiple_of=4),
            "cloud": PointCloudProcessor(max_points=5),
            "image": PerceiverIOImageProcessor(size=(8, 6), image_mean=[0.1, 0.2, 0.3]),
            "table": TableProcessor.fitted([{"age": 1, "sex": "f"}, {"age": 4, "sex": "m"}]),
            "text": ByteTextProcessor(max_length=12),
            "video": PerceiverIOVideoProcessor(num_frames=2, size=(8, 6)),
        }
    )


@pytest.fixture(autouse=True)
def auto_classes() -> None:
    """They know what the tasks tell them; that of images comes with the package."""
    AutoFeatureExtractor.register(PerceiverIOConfig, PerceiverIOFeatureExtractor, exist_ok=True)
    AutoVideoProcessor.register(
        PerceiverIOConfig, video_processor_classes={"torchvision": PerceiverIOVideoProcessor}, exist_ok=True
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, without a processor."""
    PerceiverIOConfig(
        inputs={"text": TextAdapter.Config(max_length=12, num_channels=8)},
        encoder=EncoderConfig(num_latents=2, latent_channels=8, num_self_attention_heads=1),
        outputs={"label": ClassificationDecoder.Config(num_classes=2)},
    ).save_pretrained(tmp_path)
    return tmp_path


def test_all_processors_keep_the_protocol() -> None:
    for one in mixture().processors.values():
        assert isinstance(one, InputProcessor)
        again = type(one).from_dict(json.loads(json.dumps(one.to_dict())))
        assert again.to_dict() == one.to_dict()
        with pytest.raises(ValueError, match="unknown"):
            type(one).from_dict({**one.to_dict(), "surprise": 1})


def test_auto_processor_gives_back_a_mixture(folder: Path) -> None:
    processor = mixture()
    processor.save_pretrained(folder)
    loaded = AutoProcessor.from_pretrained(folder)
    assert type(loaded) is PerceiverIOProcessor and loaded == processor
    first, second = processor([VALUES, {"text": "a"}]), loaded([VALUES, {"text": "a"}])
    for part in ("inputs", "masks"):
        assert first[part].keys() == second[part].keys() == VALUES.keys()
        for name, tensor in first[part].items():
            torch.testing.assert_close(second[part][name], tensor, rtol=0, atol=0, equal_nan=True)


def test_inputs_that_a_sample_lacks_are_masked_and_those_that_all_lack_are_left_out() -> None:
    batch = mixture()([{"text": "a", "cloud": None}, {"image": VALUES["image"], "text": "abc"}])
    assert batch["inputs"].keys() == batch["masks"].keys() == {"image", "text"}
    assert not batch["masks"]["image"][0].any() and batch["masks"]["image"][1].all()
    assert batch["masks"]["text"].sum(1).tolist() == [3, 5]


@pytest.mark.parametrize("name", ["audio", "cloud", "image", "text", "video"])
def test_a_processor_of_one_input_is_found_whatever_its_file(name: str, folder: Path) -> None:
    one = mixture().processors[name]
    if isinstance(one, ByteTextProcessor):
        one.tokenizer.save_pretrained(folder)
        loaded = AutoProcessor.from_pretrained(folder)
        assert loaded("Grüße").input_ids == one.prepare("Grüße").tolist()
        return
    PerceiverIOProcessor({name: one}).save_pretrained(folder)
    loaded = AutoProcessor.from_pretrained(folder)
    if isinstance(loaded, PerceiverIOProcessor):
        assert name == "cloud"
        loaded = loaded.processors[name]
    assert type(loaded) is type(one) and loaded.to_dict() == one.to_dict()


def test_a_folder_without_a_processor_says_so(folder: Path) -> None:
    with pytest.raises(OSError, match="no processor"):
        PerceiverIOProcessor.from_pretrained(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "must have `inputs`"),
        ('{"inputs": {"a": {"type": "smell"}}}', "no processor 'smell'"),
        ('{"inputs": {"a": {"type": "text", "length": 3}}}', "unknown keys"),
        ('{"inputs": {"a": {"type": "text", "max_length": "long"}}}', "must be int"),
    ],
)
def test_damaged_settings_are_refused(content: str, message: str, folder: Path) -> None:
    (folder / "processor_config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("image", {"crop_fraction": 7}, "crop_fraction=7"),
        ("audio", {"sampling_rate": 0}, "sampling_rate must be"),
    ],
)
def test_a_damaged_file_of_one_kind_is_not_taken_for_another(
    name: str, setting: dict[str, Any], message: str, folder: Path
) -> None:
    settings = {**mixture().processors[name].to_dict(), **setting}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=message):
        AutoProcessor.from_pretrained(folder)


def test_a_package_that_is_not_installed_is_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise ImportError("AutoImageProcessor requires the PIL library")

    (folder / "processor_config.json").write_text('{"type": "table"}')
    monkeypatch.setattr(PROCESSORS, "untagged", lacking)
    with pytest.raises(ImportError, match="requires the PIL library"):
        PerceiverIOProcessor.from_pretrained(folder)
