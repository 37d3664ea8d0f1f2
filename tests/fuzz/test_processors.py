"""Settings of processors beside a model, changed: a processor that has them as the file says, or an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor, PerceiverTokenizer
from transformers.models.perceiver.image_processing_pil_perceiver import PerceiverImageProcessorPil

from fuzz.changes import changed_bytes, changed_values, places, value_at
from fuzz.trials import Refused, cases, tried
from perceiver_io.adapters.audio_processor import PerceiverIOFeatureExtractor
from perceiver_io.adapters.cloud_processor import PointCloudProcessor
from perceiver_io.adapters.frame_pair_processor import FramePairProcessor
from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.adapters.music_processor import MusicProcessor
from perceiver_io.adapters.pixel_processor import PixelSequenceProcessor
from perceiver_io.adapters.table_processor import TableProcessor
from perceiver_io.adapters.text_processor import ByteTextProcessor
from perceiver_io.adapters.video_processor import PerceiverIOVideoProcessor
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.running.find_task import get_task
from perceiver_io.tasks.causal_language_modeling.tokenizer import byte_tokenizer
from perceiver_io.tasks.multimodal_autoencoding.processor import ClipProcessor

SIZE = {"height": 6, "width": 8}
TABLE = TableProcessor(
    columns=("age", "kind"), categories=(None, ("a", "b")), means=(2.0, 0.0), scales=(0.5, 1.0)
)
# What each is saved by, and the task that reads it.
SAVED: dict[str, tuple[Any, str]] = {
    "image": (PerceiverIOImageProcessor(size=SIZE), "image-classification"),
    "published image": (PerceiverImageProcessorPil(), "image-classification"),
    "audio": (PerceiverIOFeatureExtractor(features="log-mel"), "audio-classification"),
    "video": (PerceiverIOVideoProcessor(num_frames=3, size=(8, 8)), "video-classification"),
    "tokenizer": (PerceiverTokenizer(), "masked-language-modeling"),
    "fast tokenizer": (byte_tokenizer(), "causal-language-modeling"),
    "text": (PerceiverIOProcessor({"text": ByteTextProcessor(max_length=9)}), "text-classification"),
    "clips": (ClipProcessor(num_frames=2, size=(4, 4), num_samples=640), "multimodal-autoencoding"),
    "several": (
        PerceiverIOProcessor(
            {
                "image": PerceiverIOVideoProcessor(num_frames=3, size=(8, 8)),
                "audio": PerceiverIOFeatureExtractor(),
                "cloud": PointCloudProcessor(max_points=5),
                "frames": FramePairProcessor(),
                "notes": MusicProcessor(),
                "pixels": PixelSequenceProcessor(size=(4, 4)),
                "table": TABLE,
                "text": ByteTextProcessor(max_length=9),
            }
        ),
        "",
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for name, (processor, _) in SAVED.items():
        found[name] = tmp_path_factory.mktemp("saved")
        processor.save_pretrained(found[name])
        AutoProcessor.from_pretrained(found[name])
    return found


# What says of which class the processor is, for `transformers`.
KINDS = {"type", "processor_class", "image_processor_type", "video_processor_type", "feature_extractor_type"}


def kept(found: Any, given: Any) -> None:
    """What a processor says of itself is what it was given, as far as it has it."""
    for place in places(given):
        value = value_at(given, place)
        try:
            own = value_at(found, place)
        except (KeyError, IndexError, TypeError):
            continue
        if (
            isinstance(value, (int, float, str))
            and isinstance(own, (int, float, str))
            and not KINDS.intersection(place)
        ):
            assert own == value, place


def check_image(processor: PerceiverIOImageProcessor) -> None:
    """A processor that was answered brings a picture to the size that it says."""
    height, width = processor.size["height"], processor.size["width"]
    if height * width > 10**5:
        return
    pixels = tried(processor.prepare, Image.new("RGB", (5, 7), (1, 2, 3)))
    assert not isinstance(pixels, Refused), pixels.error
    assert tuple(pixels.shape) == (processor.num_channels, height, width)
    assert pixels.isfinite().all()


@pytest.mark.parametrize("name", SAVED)
@cases(few=10)
@given(data=st.data())
def test_settings(
    data: st.DataObject, name: str, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"settings {name}"
    folder.mkdir(exist_ok=True)
    for path in folders[name].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    changed = data.draw(st.sampled_from(sorted(path for path in folder.iterdir() if path.suffix == ".json")))
    content = changed.read_bytes()
    if len(content) < 10_000 and data.draw(st.integers(0, 3)):
        values = data.draw(changed_values(json.loads(content)))
        changed.write_text(json.dumps(values))
    else:
        changed.write_bytes(data.draw(changed_bytes(content)))
    load = (
        get_task(SAVED[name][1]).load_processor if name != "several" else PerceiverIOProcessor.from_pretrained
    )
    loaded = tried(load, folder)
    event(f"{type(loaded).__name__}")
    if isinstance(loaded, Refused) or loaded is None:
        return
    if isinstance(loaded, PerceiverIOImageProcessor):
        check_image(loaded)
    if isinstance(loaded, (PerceiverIOProcessor, PerceiverIOImageProcessor, ClipProcessor)):
        settings = loaded.to_dict()
        if not name.startswith("published"):
            kept(settings, json.loads(changed.read_bytes()))
        assert type(loaded).from_dict(json.loads(json.dumps(settings))).to_dict() == settings
    else:  # tokenizers
        assert isinstance(tried(loaded, "text")["input_ids"], list)
