"""Pipelines of transformers that take the latents as features; those of tasks are tested beside their tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline

import perceiver_io as pio
from perceiver_io.adapters.image_processor import PerceiverIOImageProcessor
from perceiver_io.media.sound import write_wav
from perceiver_io.processor import PerceiverIOProcessor
from perceiver_io.registry import TASKS
from tests.clients.cases import model


def test_image_feature_extraction(tmp_path: Path) -> None:
    net = model("image-classification")
    net.save_pretrained(tmp_path)
    PerceiverIOImageProcessor(size=(8, 8)).save_pretrained(tmp_path)
    image = Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3))
    extract = pipeline("image-feature-extraction", model=str(tmp_path))
    features = torch.tensor(extract(image))
    pixels = PerceiverIOImageProcessor(size=(8, 8))(image)["pixel_values"]
    torch.testing.assert_close(features, net.base_model.encode({"image": pixels}).latents)


def test_feature_extraction_of_texts(tmp_path: Path) -> None:
    net = model("masked-language-modeling")
    net.save_pretrained(tmp_path)
    TASKS.get("masked-language-modeling")().save_processor(net, tmp_path)
    extract = pipeline("feature-extraction", model=str(tmp_path))
    features = torch.tensor(extract("Hello"))
    tokenizer = extract.tokenizer
    encoded = tokenizer("Hello", return_tensors="pt")
    expected = net.base_model.encode(
        {"text": encoded["input_ids"]}, {"text": encoded["attention_mask"].bool()}
    ).latents
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("name", ["optical-flow", "multimodal-autoencoding"])
def test_processors_of_models_without_a_pipeline(name: str, tmp_path: Path) -> None:
    net = model(name)
    net.save_pretrained(tmp_path)
    TASKS.get(name)().save_processor(net, tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    if name == "optical-flow":
        frames = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), np.uint8)
        Image.fromarray(frames[0]).save(tmp_path / "first.png")
        batch = processor({"frames": (tmp_path / "first.png", frames[1])})
        pixels = torch.from_numpy(frames).movedim(-1, 1)[None] / 127.5 - 1
        torch.testing.assert_close(net(**batch).flow, net(frames=pixels).flow)
        ragged = processor([{"frames": frames}, {"frames": frames[:, :4, :6]}])
        alone = net(frames=batch["inputs"]["frames"]).flow
        torch.testing.assert_close(net(**ragged).flow[:1], alone, atol=1e-5, rtol=1e-4)
        with pytest.raises(ValueError, match="first and its second frame"):
            processor({"frames": "first.png"})
        return
    write_wav(tmp_path / "x.wav", np.zeros(10), sample_rate=1000)
    assert processor.clip_format.num_samples == 64 and processor.frame_rate == 25
    with pytest.raises(ValueError, match="no videos"):
        processor([])
    with pytest.raises(ValueError, match="video"):
        processor(tmp_path / "x.wav")


def test_a_mixture(tmp_path: Path) -> None:
    from perceiver_io.adapters.text_processor import ByteTextProcessor

    net = model("multimodal-classification")
    net.save_pretrained(tmp_path)
    made = PerceiverIOProcessor(
        {"image": PerceiverIOImageProcessor(size=(4, 4)), "text": ByteTextProcessor(max_length=8)}
    )
    made.save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert processor == made
    batch = processor([{"image": Image.new("RGB", (5, 5)), "text": "\x01"}, {"text": "\x02\x03"}])
    base = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(base, pio.PerceiverIO)
    latents = base(**{**batch, "inputs": {**batch["inputs"], "text": batch["inputs"]["text"] % 20}})[0]
    assert latents.shape == (2, 4, 16)
