"""Weights that lie elsewhere between calls, on the CPU or on disk: to the bit what they give in place."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import small_models
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import perceiver_io as pio

Offload = Callable[[nn.Module, Path], nn.Module]


def on_cpu(model: nn.Module, folder: Path) -> nn.Module:
    return accelerate.cpu_offload(model, execution_device="cpu")


def on_disk(model: nn.Module, folder: Path) -> nn.Module:
    return accelerate.disk_offload(model, folder / "offloaded", execution_device="cpu")


def halves(model: nn.Module) -> dict[str, str]:
    """A device map: what goes in and comes out is on disk, the rest on the CPU."""
    return {
        f"perceiver.{name}": "disk" if name in ("adapters", "decoders") else "cpu"
        for name, _ in model.perceiver.named_children()
    }


def dispatched(model: nn.Module, folder: Path) -> nn.Module:
    return accelerate.dispatch_model(
        model,
        halves(model),
        main_device="cpu",
        offload_dir=folder / "offloaded",
        force_hooks=True,
    )


def hooked(model: nn.Module) -> nn.Module:
    """A copy whose layers all have a hook that does nothing: they are called then, as those that are offloaded are."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        accelerate.hooks.add_hook_to_module(module, accelerate.hooks.ModelHook())
    return copied


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("offload", [on_cpu, on_disk, dispatched])
@pytest.mark.parametrize("name", small_models.CONFIGS)
def test_offloaded_models_are_the_same(name: str, offload: Offload, tmp_path: Path) -> None:
    model = small_models.model(name)
    arguments = small_models.arguments(name)
    with torch.no_grad():
        in_place = small_models.outputs(model(**arguments))
        expected = small_models.outputs(hooked(model)(**arguments))
        offloaded = offload(model, tmp_path)
        places = {parameter.device.type for parameter in offloaded.parameters()}
        found = small_models.outputs(offloaded(**arguments))
    assert "meta" in places
    assert {parameter.device.type for parameter in offloaded.parameters()} == places
    assert found.keys() == expected.keys()
    for output, value in expected.items():
        assert torch.equal(found[output], value), output
        torch.testing.assert_close(value, in_place[output], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", ["cpu", "disk"])
@pytest.mark.parametrize("name", small_models.CONFIGS)
def test_models_are_loaded_to_where_the_map_says(name: str, place: str, tmp_path: Path) -> None:
    model = small_models.model(name)
    model.save_pretrained(tmp_path)
    arguments = small_models.arguments(name)
    device_map = halves(model) if place == "disk" else {"": "cpu"}
    loaded = pio.from_pretrained(tmp_path, device_map=device_map, offload_folder=tmp_path / "offloaded")
    reference = hooked(model) if place == "disk" else model
    with torch.no_grad():
        expected, found = (small_models.outputs(each(**arguments)) for each in (reference, loaded))
    for output, value in expected.items():
        assert torch.equal(found[output], value), output


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"dtype": "auto"}, torch.float16),
        ({}, torch.float16),
        ({"dtype": torch.bfloat16}, torch.bfloat16),
        ({"torch_dtype": torch.bfloat16}, torch.bfloat16),
        ({"dtype": "float32"}, torch.float32),
        ({"device_map": "cpu"}, torch.float16),
        ({"device_map": {"": torch.device("cpu")}}, torch.float16),
        ({"low_cpu_mem_usage": True}, torch.float16),
        ({"low_cpu_mem_usage": False, "dtype": torch.float64}, torch.float64),
    ],
    ids=str,
)
@pytest.mark.parametrize("load", ["any", "class"])
def test_types_and_ways_of_loading(
    options: dict[str, Any], dtype: torch.dtype, load: str, tmp_path: Path
) -> None:
    model = small_models.model("mlm").half()
    model.save_pretrained(tmp_path)
    load_from = pio.from_pretrained if load == "any" else type(model).from_pretrained
    loaded = load_from(tmp_path, **options)
    assert loaded.dtype == loaded.config.dtype == dtype
    assert loaded.device.type == "cpu" and not loaded.training
    tensors = loaded.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(tensors[name], value.to(dtype)), name


def test_sharded_weights_are_loaded_strictly(tmp_path: Path) -> None:
    model = small_models.model("mlm")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2 and not (tmp_path / "model.safetensors").exists()
    loaded = pio.from_pretrained(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    tensors = load_file(shards[1])
    (dropped, *_) = tensors
    save_file({dropped + ".again": tensors.pop(dropped), **tensors}, shards[1], {"format": "pt"})
    with pytest.raises(
        ValueError, match=rf"missing tensor: {dropped}\n  unexpected tensor: {dropped}\.again"
    ):
        pio.from_pretrained(tmp_path)
    shards[1].unlink()
    with pytest.raises(OSError, match=shards[1].name):
        pio.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["fourier", "multimodal"])
def test_shards_are_loaded_in_another_type_to_wherever_there_is_room(name: str, tmp_path: Path) -> None:
    model = small_models.model(name)
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    loaded = pio.from_pretrained(tmp_path, dtype=torch.bfloat16, device_map="auto")
    tensors = loaded.state_dict()
    for path, value in model.state_dict().items():
        assert torch.equal(tensors[path].cpu(), value.bfloat16()), path
    arguments = {
        key: value.bfloat16() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for key, value in small_models.arguments(name).items()
    }
    with torch.no_grad():
        found, expected = (
            small_models.outputs(each(**arguments)) for each in (loaded, model.bfloat16().to(loaded.device))
        )
    for output, value in expected.items():
        assert torch.equal(found[output], value), output


def test_blocks_of_layers_are_not_split() -> None:
    model = small_models.model("mlm")
    classes = {type(module).__name__ for module in model.modules()}
    assert model._no_split_modules and set(model._no_split_modules) <= classes
    size = sum(parameter.nbytes for parameter in model.parameters())
    device_map = accelerate.infer_auto_device_map(
        model,
        {"cpu": int(0.7 * size), "disk": 2 * size},
        no_split_module_classes=list(model._no_split_modules),
    )
    split = {
        name for name, module in model.named_modules() if type(module).__name__ in model._no_split_modules
    }
    assert len(set(device_map.values())) == 2 and len(split) == 4
    for name in split:
        inside = {place for key, place in device_map.items() if key == name or key.startswith(f"{name}.")}
        assert len(inside) <= 1, name
