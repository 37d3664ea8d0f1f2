"""krasserm's Perceiver IO models against what his implementation computed with the same values of parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import perceiver_io as pio
from tests.causal.goldens import krasserm_value

DATA = Path(__file__).parents[1] / "data"
MODELS = json.loads((DATA / "tiny-io-krasserm.json").read_text())["models"]


def write(name: str, folder: Path, **changes: Any) -> Path:
    model = MODELS[name]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**model["config"], **changes}))
    tensors = {one: torch.from_numpy(krasserm_value(one, shape)) for one, shape in model["params"].items()}
    if name == "image":
        tensors["backend_model.0.input_adapter.position_encoding"] = torch.zeros(48, 18)  # never read
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_computes_what_his_does(name: str, tmp_path: Path) -> None:
    with np.load(DATA / "tiny-io-krasserm.npz") as stored:
        expected = torch.from_numpy(stored[f"out_{name}"])
        first = torch.from_numpy(stored[f"in_{name}_0"])
        pad = torch.from_numpy(stored[f"in_{name}_1"]) if f"in_{name}_1" in stored else None
    model: Any = pio.from_pretrained(write(name, tmp_path / name)).eval()
    with torch.no_grad():
        if name == "image":
            found = model(first.permute(0, 3, 1, 2)).logits
        elif name == "flow":  # his is in units of 20 pixels
            found = model.perceiver({"frames": first})["flow"].permute(0, 2, 3, 1) / 20
        else:
            assert pad is not None
            found = model(first, ~pad).logits
    if name.startswith("mlm"):  # what stands on padding means nothing
        assert pad is not None
        found, expected = found[~pad], expected[~pad]
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.std()
    model.save_pretrained(tmp_path / "ours")
    again = pio.from_pretrained(tmp_path / "ours")
    assert type(again) is type(model)


def test_names_of_classes(tmp_path: Path) -> None:
    names = {"0": "bad", "1": "fair", "2": "good"}
    model = pio.from_pretrained(write("text", tmp_path / "text", id2label=names))
    assert model.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    other = pio.from_pretrained(
        write("image", tmp_path / "image"), num_labels=5, ignore_mismatched_sizes=True
    )
    assert other.config.num_labels == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": None}, "lacks a setting or has one of a wrong type"),
        ({"num_latents": None}, "num_latents"),
        ({"num_latent_channels": 17}, "heads"),
    ],
)
def test_damaged_settings(change: dict, message: str, tmp_path: Path) -> None:
    settings = {**MODELS["mlm"]["config"]["model_config"], **change}
    with pytest.raises(ValueError, match=message):
        pio.from_pretrained(write("mlm", tmp_path / "mlm", model_config=settings))


def test_cross_attends_that_ours_would_spread(tmp_path: Path) -> None:
    settings = json.loads(json.dumps(MODELS["mlm"]["config"]["model_config"]))
    settings["encoder"] |= {"num_cross_attention_layers": 2, "num_self_attention_blocks": 4}
    with pytest.raises(ValueError, match="his stand before the first blocks"):
        pio.from_pretrained(write("mlm", tmp_path / "mlm", model_config=settings))


def test_another_kind_of_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'perceiver-io-something' model"):
        pio.from_pretrained(write("mlm", tmp_path / "mlm", model_type="perceiver-io-something"))
