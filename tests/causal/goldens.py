"""The tiny Perceiver ARs of both public implementations, as stored in `tests/data/tiny-ar-*`.

Parameter values are a function of the name, so none are stored.
"""

from __future__ import annotations

import json
import math
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

import perceiver_io as pio
from perceiver_io.adapters.pixel_sequence import PixelSequenceAdapter
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.tasks.autoregressive import PerceiverARForCausalLM
from perceiver_io.tasks.autoregressive.presets import TOKENS
from tests.test_goldens import jax_value

DATA = Path(__file__).parents[1] / "data"
DEEPMIND = json.loads((DATA / "tiny-ar-deepmind.json").read_text())
KRASSERM = json.loads((DATA / "tiny-ar-krasserm.json").read_text())


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"tiny-ar-{name}.npz") as stored:
        return dict(stored)


def deepmind_config(name: str, *, num_latents: int = 24, max_length: int = 24) -> pio.PerceiverIOConfig:
    """The configuration of a tiny model, out of the release's settings; by default any number of latents goes."""
    values = DEEPMIND["models"][name]["config"]
    width, latents = values["input_embed_dim"], values["num_z_channels"]
    rotary = values["position_encoding_type"] == "rotary"
    heads = values["num_transformer_heads"]
    adapter: Any
    if name == "axes":  # rows of a table: padding, the start token, and each place
        x, y, channels = (rows - 2 for rows in values["input_idx_size"])
        size = (y, x, channels)
        adapter = PixelSequenceAdapter.Config(vocab_size=12, size=size, num_channels=width)
    else:
        adapter = TextAdapter.Config(
            vocab_size=12,
            max_length=64,
            num_channels=width,
            position="none" if rotary else "sinusoidal",
            counts_real=True,
        )
    return pio.PerceiverIOConfig(
        inputs={TOKENS: adapter},
        encoder=pio.CausalEncoderConfig(
            sequence=TOKENS,
            max_length=max_length,
            num_latents=num_latents,
            latent_channels=latents,
            num_self_attends=values["num_transformers_per_block"],
            num_heads=heads,
            rotary_fraction=values["fraction_to_rotate"] if rotary else 0.0,
            rotary_wavelengths="both_ends",
            rotary_max_wavelength=24.0,
            rotary_backwards=not values["use_positions_from_data"],
            project_latents=True,
            widening_factor=2,
            activation="squared_relu",
        ),
        outputs={TOKENS: pio.NextTokenDecoder.Config(vocab_size=12)},
    )


def write_deepmind(name: str, path: Path) -> Path:
    """Writes a checkpoint as the release does, the step and the optimizer's state among it."""
    model = DEEPMIND["models"][name]
    params: dict[str, dict[str, np.ndarray]] = {
        module: {leaf: jax_value(module, leaf, shape) for leaf, shape in leaves.items()}
        for module, leaves in model["params"].items()
    }
    for module, leaves in model.get("fixed", {}).items():
        params[module] = {leaf: np.zeros(shape, "float32") for leaf, shape in leaves.items()}
    checkpoint = {"global_step": 3, "params": params, "state": {}, "opt_state": None}
    path.write_bytes(pickle.dumps(checkpoint, protocol=4))
    return path


def krasserm_value(name: str, shape: list[int]) -> np.ndarray:
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype("float32")
    if name.endswith(("_embedding.weight", "bias")):
        return np.float32(0.1) * x
    if len(shape) == 1:
        return 1 + np.float32(0.1) * x
    gain = 0.5 if ".self_attention." in name else 1
    if ".cross_attention." in name and name.endswith(("q_proj.weight", "k_proj.weight")):
        gain = 2
    return x * np.float32(gain / math.sqrt(shape[1]))


def write_krasserm(name: str, folder: Path) -> Path:
    """Writes a folder as his implementation does."""
    model = KRASSERM["models"][name]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(model["config"]))
    tensors = {name: torch.from_numpy(krasserm_value(name, shape)) for name, shape in model["params"].items()}
    for buffer, shape in model["buffers"].items():
        (pairs,) = shape
        steps = torch.arange(0, 2 * pairs, 2).float()
        tensors[buffer] = 1.0 / (10_000 ** (steps / (2 * pairs)))
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def load_krasserm(name: str, folder: Path) -> PerceiverARForCausalLM:
    model = pio.from_pretrained(write_krasserm(name, folder / name))
    assert isinstance(model, PerceiverARForCausalLM)
    return model.eval()
