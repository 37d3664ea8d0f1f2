"""The tiny published models against what the original JAX release computed, through its parameter files.

`data/tiny-*.json` lists every parameter's name and shape as the JAX release has them, `data/tiny-*.npz` holds
inputs (channels last) and outputs. Parameter values are a function of the name, so none are stored.
"""

import json
import math
import pickle
import sys
import types
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import perceiver_io as pio
from perceiver_io import PerceiverIOPreTrainedModel
from tests.small_models import CONFIGS, fourier_config

DATA = Path(__file__).parent / "data"
Arrays = Mapping[str, np.ndarray]


def jax_value(module: str, leaf: str, shape: list[int]) -> np.ndarray:
    """The value that the reference run gave to a parameter."""
    name = f"{module}/{leaf}"
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype("float32")
    if leaf == "w":
        gain = 0.5 if "/self_attention" in name else 1
        if name.endswith(("cross_attention/attention/linear/w", "cross_attention/attention/linear_1/w")):
            gain = 2
        return x * np.float32(gain / math.sqrt(math.prod(shape[:-1])))
    if leaf in ("average", "hidden"):
        return np.abs(x) + np.float32(0.5) if "/var_ema" in name else np.float32(0.1) * x
    if leaf == "counter":
        return np.zeros(shape, "int32")
    if leaf == "scale":
        return 1 + np.float32(0.1) * x
    return x * np.float32({"b": 0.1, "offset": 0.1, "bias": 0.1, "pos_embs": 0.5, "embeddings": 0.5}[leaf])


def trees(name: str) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    shapes = json.loads((DATA / f"tiny-{name}.json").read_text())
    return {
        kind: {
            module: {leaf: jax_value(module, leaf, shape) for leaf, shape in leaves.items()}
            for module, leaves in tree.items()
        }
        for kind, tree in shapes.items()
    }


class FlatMapping(dict):
    """Pickles as Haiku's mappings do; only the name of the class is theirs."""

    def __reduce__(self) -> tuple[Any, ...]:
        return FlatMapping, (dict(self),)


class DeviceArray:
    """Pickles as JAX's arrays do."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __reduce__(self) -> tuple[Any, ...]:
        function, arguments, state = self.array.__reduce__()
        return _reconstruct_array, (function, arguments, state, {"weak_type": False, "named_shape": {}})


def _reconstruct_array(*_: Any) -> None:
    raise AssertionError("nothing in a parameter file is called")


THEIRS: dict[str, Any] = {"haiku._src.data_structures": FlatMapping, "jax._src.array": _reconstruct_array}


@pytest.fixture
def haiku_and_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names under which the two above can be pickled."""
    for name, member in THEIRS.items():
        parts = name.split(".")
        for count in range(1, len(parts) + 1):  # pickling imports the packages too
            module = ".".join(parts[:count])
            monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        monkeypatch.setattr(sys.modules[name], member.__name__, member, raising=False)
        monkeypatch.setattr(member, "__module__", name)


def in_haiku_and_jax(tree: Mapping[str, Mapping[str, np.ndarray]]) -> FlatMapping:
    return FlatMapping(
        {
            module: FlatMapping({leaf: DeviceArray(array) for leaf, array in leaves.items()})
            for module, leaves in tree.items()
        }
    )


def save(name: str, path: Path, *, as_haiku: bool = False, protocol: int = 4) -> Path:
    """Writes a parameter file as they were published: image models with their state, the others without."""
    both = trees(name)
    if as_haiku:
        both = {kind: in_haiku_and_jax(tree) for kind, tree in both.items()}
    with path.open("wb") as file:
        pickle.dump(both if both["state"] else both["params"], file, protocol=protocol)
    return path


def run(model: PerceiverIOPreTrainedModel, arrays: Arrays) -> dict[str, Tensor]:
    """What the model computes, by the name of the stored output, in its layout."""
    inputs = {name[3:]: torch.from_numpy(array) for name, array in arrays.items() if name.startswith("in_")}
    perceiver: Any = model.perceiver  # type: ignore[assignment]
    with torch.no_grad():
        if "video" in inputs:
            points = {
                "image": inputs["image_points"].long(),
                "audio": inputs["audio_points"].long(),
                "label": None,
            }
            outputs = perceiver(
                {
                    "image": inputs["video"].permute(0, 1, 4, 2, 3),
                    "audio": inputs["audio"].squeeze(-1),
                    "label": torch.zeros(1, 7),
                },
                points=points,
            )
            return {
                "image": outputs["image"],
                "audio": outputs["audio"].flatten(1),
                "label": outputs["label"],
            }
        if "frames" in inputs:
            return {
                "output": perceiver({"frames": inputs["frames"].permute(0, 1, 4, 2, 3)})["flow"].permute(
                    0, 2, 3, 1
                )
            }
        if "input_ids" in inputs:
            mask = inputs["attention_mask"].bool()
            return {"output": perceiver({"text": inputs["input_ids"].long()}, {"text": mask})["text"]}
        return {"output": perceiver({"image": inputs["image"].permute(0, 3, 1, 2)})["label"]}


def relative_errors(model: PerceiverIOPreTrainedModel, name: str) -> dict[str, float]:
    with np.load(DATA / f"tiny-{name}.npz") as golden:
        arrays = dict(golden)
    errors = {}
    for output, value in run(model, arrays).items():
        expected = torch.from_numpy(arrays[f"out_{output}"])
        assert value.shape == expected.shape
        errors[output] = ((value - expected).abs().max() / expected.std()).item()
    return errors


@pytest.mark.parametrize("name", CONFIGS)
def test_agrees_with_the_jax_release(name: str, tmp_path: Path) -> None:
    model = pio.from_deepmind(save(name, tmp_path / "parameters"), CONFIGS[name]())
    assert not model.training
    errors = relative_errors(model, name)
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize(("name", "protocol"), [*((name, 4) for name in CONFIGS), ("conv", 2), ("conv", 5)])
def test_mappings_of_haiku_and_arrays_of_jax_are_read_without_them(
    name: str, protocol: int, tmp_path: Path, haiku_and_jax: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(name, tmp_path / "parameters", as_haiku=True, protocol=protocol)
    for module in THEIRS:
        assert module.encode() in path.read_bytes()
        monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    model = pio.from_deepmind(path, CONFIGS[name]())
    plain = pio.from_deepmind(save(name, tmp_path / "plain"), CONFIGS[name]())
    for key, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_the_tolerance_tells_the_exact_gelu_from_the_approximation(tmp_path: Path) -> None:
    model = pio.from_deepmind(save("fourier", tmp_path / "parameters"), fourier_config(activation="gelu"))
    assert relative_errors(model, "fourier")["output"] > 1e-4


def test_saved_again_as_ours(tmp_path: Path) -> None:
    model = pio.from_deepmind(save("conv", tmp_path / "parameters"), CONFIGS["conv"]())
    model.save_pretrained(tmp_path / "ours")
    assert relative_errors(pio.from_pretrained(tmp_path / "ours"), "conv")["output"] < 1e-4
