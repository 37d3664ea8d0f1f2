"""Saving and loading as people do it: auto classes, shards, types, device maps, in every class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

import perceiver_io as pio
from tests.clients.cases import CASES, batch, model

# What each class is found by, besides AutoModel and perceiver_io.from_pretrained.
AUTO = {
    "image-classification": "AutoModelForImageClassification",
    "audio-classification": "AutoModelForAudioClassification",
    "video-classification": "AutoModelForVideoClassification",
    "text-classification": "AutoModelForSequenceClassification",
    "semantic-segmentation": "AutoModelForSemanticSegmentation",
    "depth-estimation": "AutoModelForDepthEstimation",
    "masked-language-modeling": "AutoModelForMaskedLM",
    "causal-language-modeling": "AutoModelForCausalLM",
}


def given(name: str) -> dict[str, Any]:
    """Arguments of a case, by the names of its inputs where the base model is to take them."""
    return {key: value for key, value in batch(name).items() if key != "labels"}


def test_all_classes_have_a_case() -> None:
    def below(kind: type) -> set[type]:
        return {kind}.union(*(below(one) for one in kind.__subclasses__()))

    public = {
        kind
        for kind in below(pio.PerceiverIOPreTrainedModel)
        if (kind.__module__.startswith("perceiver_io.tasks") and kind.__name__.startswith("PerceiverIOFor"))
        or kind.__name__.startswith("PerceiverARFor")
    }
    assert {type(model(name)) for name in CASES} == public


@pytest.mark.parametrize("name", CASES)
def test_saved_and_loaded_by_every_way(name: str, tmp_path: Path) -> None:
    net = model(name)
    net.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    for found in (config, pio.PerceiverIOConfig.from_json_file(tmp_path / "config.json")):
        for part in ("inputs", "encoder", "outputs", "packing", "shared_attention", "id2label"):
            assert getattr(found, part) == getattr(net.config, part)
    loaders: list[Any] = [pio.from_pretrained, type(net).from_pretrained]
    if name in AUTO:
        loaders.append(getattr(transformers, AUTO[name]).from_pretrained)
    with torch.no_grad():
        expected = net(**batch(name))
        for load in loaders:
            twin = load(tmp_path).eval()
            assert type(twin) is type(net)
            torch.testing.assert_close(twin(**batch(name)).to_tuple(), expected.to_tuple(), rtol=0, atol=0)
    base = transformers.AutoModel.from_pretrained(tmp_path)
    assert type(base) is pio.PerceiverIO
    for key, value in base.state_dict().items():
        assert torch.equal(value, net.base_model.state_dict()[key])


@pytest.mark.parametrize("name", CASES)
def test_shards(name: str, tmp_path: Path) -> None:
    net = model(name)
    net.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1 and (tmp_path / "model.safetensors.index.json").exists()
    assert sum(len(load_file(shard)) for shard in shards) == len(net.state_dict())
    twin = pio.from_pretrained(tmp_path)
    for key, value in twin.state_dict().items():
        assert torch.equal(value, net.state_dict()[key])


@pytest.mark.parametrize("name", CASES)
def test_types_and_device_maps(name: str, tmp_path: Path) -> None:
    net = model(name)
    net.save_pretrained(tmp_path)
    half = pio.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.state_dict(), net.to(torch.bfloat16).state_dict(), rtol=0, atol=0)
    half.save_pretrained(tmp_path / "half")
    assert pio.from_pretrained(tmp_path / "half").dtype == torch.bfloat16
    assert pio.from_pretrained(tmp_path / "half", dtype="float32").dtype == torch.float32
    for device_map in ("cpu", "auto", {"": "cpu"}):
        assert pio.from_pretrained(tmp_path, device_map=device_map).device.type == "cpu"


@pytest.mark.parametrize(
    ("implementation", "works"),
    [("sdpa", True), ("eager", True), ("flash_attention_2", False), ("flex_attention", False), ("x", False)],
)
def test_attention_implementations(implementation: str, works: bool, tmp_path: Path) -> None:
    model("image-classification").save_pretrained(tmp_path)
    if works:
        loaded = pio.from_pretrained(tmp_path, attn_implementation=implementation)
        assert loaded.config._attn_implementation == implementation
        return
    with pytest.raises(ValueError, match="attn_implementation must be 'sdpa'"):
        pio.from_pretrained(tmp_path, attn_implementation=implementation)


def test_an_empty_configuration() -> None:
    empty = pio.PerceiverIOConfig()
    assert empty == transformers.AutoConfig.for_model("perceiver_io") and empty.is_empty
    assert "perceiver_io" in repr(empty)
    with pytest.raises(ValueError, match="The configuration is empty"):
        pio.PerceiverIO(empty)
    with pytest.raises(ValueError, match="at least one input"):
        pio.PerceiverIOConfig(inputs={}, outputs={})
