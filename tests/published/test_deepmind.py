"""Parameter files of the original release that are not what they should be, and what does not matter in them.

That they are read rightly, `test_goldens.py` shows.
"""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import perceiver_io as pio
from perceiver_io import PerceiverIOConfig
from perceiver_io.tasks import image_classification, optical_flow

DATA = Path(__file__).parent.parent / "data"
CONV = "image_preprocessor/~/conv2_d_downsample/~"
LINEAR = "perceiver_encoder/~/self_attention/mlp/linear"


def config(variant: str = "conv") -> PerceiverIOConfig:
    return image_classification.config(
        num_classes=10,
        size=(32, 32),
        variant=variant,
        image={"num_bands": 4},
        encoder={
            "num_latents": 8,
            "latent_channels": 32,
            "num_blocks": 2,
            "num_self_attends_per_block": 2,
            "num_self_attention_heads": 4,
        },
    )


@pytest.fixture
def trees() -> Any:
    """The trees of a tiny model with convolutional features."""
    shapes = json.loads((DATA / "tiny-conv.json").read_text())
    random = np.random.default_rng(0)
    return {
        kind: {
            module: {leaf: random.standard_normal(shape).astype("float32") for leaf, shape in leaves.items()}
            for module, leaves in tree.items()
        }
        for kind, tree in shapes.items()
    }


def load(content: Any, folder: Path, config: Any) -> Any:
    path = folder / "file.pystate"
    path.write_bytes(pickle.dumps(content))
    return pio.from_deepmind(path, config)


def test_every_array_goes_where_it_belongs(trees: Any, tmp_path: Path) -> None:
    model = load(trees, tmp_path, config())
    assert type(model).__name__ == "PerceiverIOForImageClassification"
    features = model.perceiver.adapters["image"].features
    kernel = trees["params"][f"{CONV}/conv"]["w"]
    for row, column, channel, feature in [(0, 0, 0, 0), (6, 2, 1, 63), (3, 5, 2, 7)]:
        assert (
            features.convolution.weight[feature, channel, row, column]
            == kernel[row, column, channel, feature]
        )
    variance = trees["state"][f"{CONV}/batchnorm/~/var_ema"]["average"]
    assert np.array_equal(features.norm.running_var, variance.ravel())
    assert features.norm.num_batches_tracked == 0
    hidden = model.perceiver.encoder.blocks[0].layers[0].feed_forward.hidden
    assert np.array_equal(hidden.weight.detach().T, trees["params"][LINEAR]["w"])
    assert np.array_equal(hidden.bias.detach(), trees["params"][LINEAR]["b"])


def test_the_model_can_be_trained(trees: Any, tmp_path: Path) -> None:
    model = load(trees, tmp_path, config()).train()
    model(torch.randn(2, 3, 32, 32), labels=torch.tensor([1, 2])).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_counters_and_hidden_averages_do_not_matter(trees: Any, tmp_path: Path) -> None:
    expected = load(trees, tmp_path, config()).state_dict()
    for statistic in trees["state"].values():
        statistic["hidden"] = np.full((1, 1, 1, 64), np.nan, "float32")
        statistic["counter"] = 12
    found = load(trees, tmp_path, config()).state_dict()
    del next(iter(trees["state"].values()))["counter"]
    assert load(trees, tmp_path, config()).state_dict().keys() == found.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize("dtype", ["float64", ">f4", "float16"])
def test_other_floating_point_types_are_converted(trees: Any, dtype: str, tmp_path: Path) -> None:
    array = trees["params"][LINEAR]["w"].astype(dtype)
    trees["params"][LINEAR]["w"] = array
    weight = load(trees, tmp_path, config()).state_dict()[
        "perceiver.encoder.blocks.0.layers.0.feed_forward.hidden.weight"
    ]
    assert weight.dtype == torch.float32
    assert np.array_equal(weight.T, array.astype("float32"))


def test_all_that_does_not_fit_is_said_at_once(trees: Any, tmp_path: Path) -> None:
    params = trees["params"]
    params[LINEAR]["w"] = np.zeros((32, 33), "float32")
    del params[f"{CONV}/conv"]
    params["lidar/linear"] = {"w": np.zeros((2, 2), "float32")}
    params[LINEAR]["extra"] = np.zeros(2, "float32")
    with pytest.raises(ValueError) as caught:
        load(trees, tmp_path, config())
    assert str(caught.value).splitlines()[1:] == [
        f"  missing array: {CONV}/conv/w",
        "  unexpected array: lidar/linear/w",
        f"  unexpected array: {LINEAR}/extra",
        f"  wrong shape: {LINEAR}/w makes (33, 32), expected (32, 32)",
    ]


def test_parameters_without_their_state(trees: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"missing array: .*/mean_ema/average\n  missing array: .*/var_ema/average$"
    ):
        load(trees["params"], tmp_path, config())


def test_the_file_of_another_model(trees: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"do not fit PerceiverIOForOpticalFlow(.|\n)*unexpected array: (.|\n)*and \d+ more"
    ):
        load(trees, tmp_path, optical_flow.config(variant="tiny"))
    with pytest.raises(ValueError, match=r"unexpected array: .*conv2_d_downsample"):
        load(trees, tmp_path, config("fourier"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "got list"),
        (np.zeros(3), "got float64"),
        ({"a": np.zeros(3)}, r"got a mapping with the keys \['a'\]"),
        ({"params": np.zeros(3), "state": {}}, "got float64"),
        ({"params": {"a": {"w": {"x": np.zeros(3)}}}}, "got a mapping .* under a/w"),
        ({"a": {"w": [1.0]}}, "got list under a/w"),
        ({"a": {"w": np.zeros(3, "int32")}}, "got int32 under a/w"),
        ({"params": {}, "state": {}, "optimizer": {}}, r"missing array"),
        ({}, "missing array"),
        (None, "got NoneType"),
    ],
    ids=str,
)
def test_trees_of_another_form(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(content, tmp_path, config())


@pytest.mark.parametrize("shape", [(), (2,), (2, 2, 2), (1, 1, 1, 1, 1)])
def test_weights_of_no_layer(shape: tuple[int, ...], trees: Any, tmp_path: Path) -> None:
    damaged = {
        "params": {name: dict(leaves) for name, leaves in trees["params"].items()},
        "state": trees["state"],
    }
    name = next(name for name, leaves in damaged["params"].items() if "w" in leaves)
    damaged["params"][name]["w"] = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=r"wrong shape: .*/w makes"):
        load(damaged, tmp_path, config())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_noticed(value: float, trees: Any, tmp_path: Path) -> None:
    damaged = {
        "params": {name: dict(leaves) for name, leaves in trees["params"].items()},
        "state": trees["state"],
    }
    name = next(name for name, leaves in damaged["params"].items() if "w" in leaves)
    damaged["params"][name]["w"] = np.full_like(damaged["params"][name]["w"], value)
    with pytest.raises(ValueError, match=r"are damaged: 1 of the \d+ tensors"):
        load(damaged, tmp_path, config())


def test_trees_that_hold_themselves(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["a"] = {"w": endless}
    with pytest.raises(ValueError, match="nested too deeply"):
        load(endless, tmp_path, config())


class Runs:
    """Creates a file if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_a_file_that_runs_something_is_refused_before_it_does(trees: Any, tmp_path: Path) -> None:
    trees["params"][LINEAR]["b"] = Runs(tmp_path / "ran")
    with pytest.raises(ValueError, match=r"file\.pystate is refused, and nothing in it has been run"):
        load(trees, tmp_path, config())
    assert not (tmp_path / "ran").exists()


def test_names_of_published_models_are_configurations(trees: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"wrong shape: .*makes \(8, 32\), expected \(512, 1024\)"):
        load(trees, tmp_path, "vision-perceiver-conv")
    with pytest.raises(
        ValueError, match=r"no published model 'vision-perceiver'\. Known: .*vision-perceiver-conv"
    ):
        load(trees, tmp_path, "vision-perceiver")


def test_configurations_of_other_models_are_refused(trees: Any, tmp_path: Path) -> None:
    other = config()
    other = PerceiverIOConfig(
        inputs={"picture": other.inputs["image"]},
        encoder=other.encoder,
        outputs={"label": other.outputs["label"]},
    )
    with pytest.raises(
        ValueError, match=r"No published model has the inputs \['picture'\] .* Known: .*image -> label"
    ):
        load(trees, tmp_path, other)


def test_architectures_that_the_release_has_not_are_refused(trees: Any, tmp_path: Path) -> None:
    values = config().to_dict()
    values["encoder"] |= {"share_blocks": "none"}
    with pytest.raises(ValueError, match=r"encoder\.blocks\.1.* has no counterpart"):
        load(trees, tmp_path, PerceiverIOConfig.from_dict(values))
    values["encoder"] |= {"share_blocks": "all", "num_cross_attends": 2}
    with pytest.raises(ValueError, match=r"encoder\.cross_attends\.1.* has no counterpart"):
        load(trees, tmp_path, PerceiverIOConfig.from_dict(values))


def test_missing_files_are_os_errors(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no_such_file"):
        pio.from_deepmind(tmp_path / "no_such_file", config())


def test_saved_as_ours_and_loaded_again(trees: Any, tmp_path: Path) -> None:
    model = load(trees, tmp_path, config())
    model.save_pretrained(tmp_path / "ours")
    twin = pio.from_pretrained(tmp_path / "ours")
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in model.state_dict().items())
