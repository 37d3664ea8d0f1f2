"""The whole model against what the original JAX release computed.

`data/tiny-*.json` lists every parameter's name and shape as the JAX release has them, `data/tiny-*.npz` holds
inputs (channels last) and outputs. Parameter values are a function of the name, so none are stored.
"""

import json
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perceiver_io import PerceiverIO
from perceiver_io.tasks import image_classification

DATA = Path(__file__).parent / "data"
ENCODER = {
    "num_latents": 8,
    "latent_channels": 32,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
}
MODELS: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "fourier": ((16, 16), {"num_bands": 4}),
    "learned": ((16, 16), {"feature_channels": 16, "position_channels": 16, "position_projection": 16}),
    "conv": ((32, 32), {"num_bands": 4}),
}
# Linear layers and layer norms are numbered in call order.
ATTENTION = {"linear": "query", "linear_1": "key", "linear_2": "value", "linear_3": "output"}
FEED_FORWARD = {"linear": "hidden", "linear_1": "output"}
CROSS_NORMS = {"layer_norm": "query_norm", "layer_norm_1": "input_norm", "layer_norm_2": "feed_forward_norm"}
SELF_NORMS = {"layer_norm": "norm", "layer_norm_1": "feed_forward_norm"}
LEAVES = {"w": "weight", "b": "bias", "scale": "weight", "offset": "bias", "pos_embs": "weight"}
IMAGE = "adapters.image"
PLACES = {
    "perceiver_encoder/~/trainable_position_encoding": "encoder.latents",
    "classification_decoder/~/basic_decoder/~/trainable_position_encoding": "decoders.label.query",
    "classification_decoder/~/basic_decoder/output": "decoders.label.output",
    "image_preprocessor/~/conv2_d": f"{IMAGE}.features",
    "image_preprocessor/~_build_network_inputs/position_encoding_projector/linear": f"{IMAGE}.position_projection",
    "image_preprocessor/~_build_network_inputs/trainable_position_encoding": f"{IMAGE}.position.table",
    "image_preprocessor/~/conv2_d_downsample/~/conv": f"{IMAGE}.features.convolution",
    "image_preprocessor/~/conv2_d_downsample/~/batchnorm": f"{IMAGE}.features.norm",
}


def our_name(module: str, leaf: str) -> str | None:
    """The name of a JAX parameter in our state dict; None for what inference does not need."""
    if statistic := re.fullmatch(r"(.*)/~/(mean|var)_ema", module):
        return f"{PLACES[statistic[1]]}.running_{statistic[2]}" if leaf == "average" else None
    if module in PLACES:
        return f"{PLACES[module]}.{LEAVES[leaf]}"
    match = re.fullmatch(
        r"(perceiver_encoder/~|classification_decoder/~/basic_decoder)/(cross|self)_attention(?:_(\d+))?/(.+)",
        module,
    )
    assert match is not None, module
    room, kind, index, part = match.groups()
    if kind == "self":
        layer = f"encoder.blocks.0.layers.{index or 0}"
    elif room.startswith("perceiver_encoder"):
        layer = "encoder.cross_attends.0"
    else:
        layer = "decoders.label.cross_attend"
    if part.startswith("attention/"):
        part = f"attention.{ATTENTION[part.removeprefix('attention/')]}"
    elif part.startswith("mlp/"):
        part = f"feed_forward.{FEED_FORWARD[part.removeprefix('mlp/')]}"
    else:
        part = (CROSS_NORMS if kind == "cross" else SELF_NORMS)[part]
    return f"{layer}.{part}.{LEAVES[leaf]}"


def jax_value(module: str, leaf: str, shape: list[int]) -> np.ndarray:
    """The value that the reference run gave to a parameter."""
    name = f"{module}/{leaf}"
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype("float32")
    if leaf == "w":
        gain = 0.5 if "/self_attention" in name else 1
        if name.endswith(("cross_attention/attention/linear/w", "cross_attention/attention/linear_1/w")):
            gain = 2
        return x * gain / math.sqrt(math.prod(shape[:-1]))
    if leaf in ("average", "hidden"):
        return np.abs(x) + 0.5 if "/var_ema" in name else 0.1 * x
    return {"scale": 1 + 0.1 * x, "b": 0.1 * x, "offset": 0.1 * x, "pos_embs": 0.5 * x}[leaf]


def our_layout(leaf: str, value: np.ndarray) -> torch.Tensor:
    """(in, out) -> (out, in), (height, width, in, out) -> (out, in, height, width), batch norms flat."""
    tensor = torch.tensor(value, dtype=torch.float32)
    if leaf == "w":
        return tensor.T if tensor.ndim == 2 else tensor.permute(3, 2, 0, 1)
    return tensor.flatten() if tensor.ndim == 4 else tensor


def parameters(name: str) -> Iterator[tuple[str, torch.Tensor]]:
    for tree in json.loads((DATA / f"tiny-{name}.json").read_text()).values():
        for module, leaves in tree.items():
            for leaf, shape in leaves.items():
                if (ours := our_name(module, leaf)) is not None:
                    yield ours, our_layout(leaf, jax_value(module, leaf, shape))


def build(name: str, **encoder: Any) -> PerceiverIO:
    size, image = MODELS[name]
    config = image_classification.config(
        num_classes=10, size=size, variant=name, image=image, encoder=ENCODER | encoder
    )
    return PerceiverIO(config).eval()


def relative_error(model: PerceiverIO, name: str) -> float:
    with np.load(DATA / f"tiny-{name}.npz") as golden:
        image, expected = torch.from_numpy(golden["in_image"]), torch.from_numpy(golden["out_output"])
    with torch.no_grad():
        logits = model({"image": image.permute(0, 3, 1, 2)})["label"]
    return ((logits - expected).abs().max() / expected.std()).item()


@pytest.mark.parametrize("name", MODELS)
def test_agrees_with_the_jax_release(name: str) -> None:
    model = build(name)
    values = dict(parameters(name))
    batch_counter = {key for key in model.state_dict() if key.endswith("num_batches_tracked")}
    assert set(values) == set(model.state_dict()) - batch_counter
    model.load_state_dict(values, strict=not batch_counter)
    assert relative_error(model, name) < 1e-4


def test_the_tolerance_tells_the_exact_gelu_from_the_approximation() -> None:
    model = build("fourier", activation="gelu")
    model.load_state_dict(dict(parameters("fourier")))
    assert relative_error(model, "fourier") > 1e-4
