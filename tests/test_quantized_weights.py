"""Models whose weights torchao makes integers while they are loaded: saved, loaded strictly, nothing else accepted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import small_models
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_
from transformers import TorchAoConfig

import perceiver_io as pio
from tests.published.theirs import CASES as PUBLISHED
from tests.published.theirs import relative_error

KINDS = {
    "int8": Int8DynamicActivationInt8WeightConfig,
    "int8 weights": Int8WeightOnlyConfig,
}


def quantized(name: str, folder: Path, kind: str = "int8") -> Any:
    """A model that is quantised while it is loaded."""
    small_models.model(name).save_pretrained(folder / "float")
    return pio.from_pretrained(folder / "float", quantization_config=TorchAoConfig(KINDS[kind]()))


def results(model: Any, name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    with torch.no_grad():
        return small_models.outputs(model(**small_models.arguments(name)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["fourier", "mlm", "multimodal"])
def test_quantised_while_loaded_is_quantised_afterwards(name: str, kind: str, tmp_path: Path) -> None:
    model = quantized(name, tmp_path, kind)
    reference = pio.from_pretrained(tmp_path / "float")
    quantize_(reference, KINDS[kind]())
    assert type(model) is type(reference)
    expected, found = results(reference, name), results(model, name)
    for output, value in expected.items():
        torch.testing.assert_close(found[output], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"])
@pytest.mark.parametrize("name", ["fourier", "mlm", "multimodal"])
def test_saved_as_integers_and_loaded_again(name: str, max_shard_size: str, tmp_path: Path) -> None:
    model = quantized(name, tmp_path)
    model.save_pretrained(tmp_path / "int8", max_shard_size=max_shard_size)
    files = list((tmp_path / "int8").glob("*.safetensors"))
    assert (len(files) > 1) == (max_shard_size == "20KB")
    loaded = pio.from_pretrained(tmp_path / "int8")
    assert type(loaded) is type(model)
    expected, found = results(model, name), results(loaded, name)
    for output, value in expected.items():
        assert torch.equal(found[output], value), output


def test_a_fourth_of_the_weights_size(tmp_path: Path) -> None:
    """For these, biases and embeddings stay as they are; scales are as many as rows."""
    wide = pio.PerceiverIOConfig.from_dict(small_models.mlm_config().to_dict())
    encoder = {"latent_channels": 320, "self_attention_v_channels": 320, "self_attention_qk_channels": 320}
    values = wide.to_dict()
    values["encoder"] |= encoder | {"cross_attention_v_channels": 320}
    model = small_models.CLASSES["mlm"](pio.PerceiverIOConfig.from_dict(values))
    model.save_pretrained(tmp_path / "float")
    smaller = pio.from_pretrained(
        tmp_path / "float", quantization_config=TorchAoConfig(Int8DynamicActivationInt8WeightConfig())
    )
    smaller.save_pretrained(tmp_path / "int8")
    sizes = [(tmp_path / kind / "model.safetensors").stat().st_size for kind in ("int8", "float")]
    assert 0.25 < sizes[0] / sizes[1] < 0.31


def changed(folder: Path, change: Any) -> None:
    """Writes the weights anew, with their description."""
    path = folder / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata()
    change(tensors)
    save_file(tensors, path, metadata)


WEIGHT = "perceiver.encoder.cross_attends.0.attention.query"


def test_what_is_missing_or_too_much_or_of_a_wrong_shape_is_named(tmp_path: Path) -> None:
    quantized("mlm", tmp_path).save_pretrained(tmp_path / "int8")
    folder = tmp_path / "int8"
    scale = f"{WEIGHT}._weight_scale"

    changed(folder, lambda tensors: tensors.update({"more": torch.zeros(1)}))
    with pytest.raises(ValueError, match=r"do not fit .*\n  unexpected tensor: more$"):
        pio.from_pretrained(folder)
    changed(folder, lambda tensors: tensors.pop("more"))
    changed(folder, lambda tensors: tensors.update({scale: tensors[scale][:5].clone()}))
    with pytest.raises(ValueError, match=rf"missing tensor: {re.escape(WEIGHT)}\.weight\n"):
        pio.from_pretrained(folder)
    changed(folder, lambda tensors: tensors.pop(scale))
    with pytest.raises(ValueError, match=rf"unexpected tensor: {re.escape(WEIGHT)}\._weight_qdata\n"):
        pio.from_pretrained(folder)


def test_a_wrong_shape_is_named(tmp_path: Path) -> None:
    quantized("mlm", tmp_path).save_pretrained(tmp_path / "int8")
    data = f"{WEIGHT}._weight_qdata"
    changed(tmp_path / "int8", lambda tensors: tensors.update({data: tensors[data][:, :8].clone()}))
    with pytest.raises(ValueError, match=rf"wrong shape: {re.escape(WEIGHT)}\.weight is \(16, 8\), expected"):
        pio.from_pretrained(tmp_path / "int8")


def set_kind(values: dict[str, Any], kind: Any) -> None:
    values["quant_type"]["default"]["_type"] = kind


HOSTILE = {
    "another method": lambda values: values.update(quant_method="bitsandbytes"),
    "no method": lambda values: values.pop("quant_method"),
    "a function": lambda values: set_kind(values, "quantize_"),
    "a module": lambda values: set_kind(values, "os"),
    "a dotted path": lambda values: set_kind(values, "os.system"),
    "a list": lambda values: set_kind(values, ["Int8WeightOnlyConfig"]),
    "a function inside": lambda values: values["quant_type"]["default"]["_data"].update(
        granularity={"_type": "quantize_", "_data": {}}
    ),
    "a list inside": lambda values: values["quant_type"]["default"]["_data"].update(granularity=[{}]),
    "an attribute": lambda values: values["quant_type"]["default"]["_data"].update(
        act_mapping_type={"_type": "MappingType", "_data": "__class__"}
    ),
    "a slow pattern": lambda values: values.update(modules_to_not_convert=["(a+)+$"]),
    "several types": lambda values: values["quant_type"].update(other={}),
    "unknown keys": lambda values: values.update(command="rm"),
    "other embeddings": lambda values: values.update(untie_embedding_weights=True),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    quantized("mlm", folder).save_pretrained(folder / "int8")
    return folder / "int8"


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_files_may_say_int8_of_torchao_and_nothing_else(change: Any, saved: Path, tmp_path: Path) -> None:
    values = json.loads((saved / "config.json").read_text())
    change(values["quantization_config"])
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "model.safetensors").symlink_to(saved / "model.safetensors")
    with pytest.raises(
        ValueError, match="quantization_config must say that torchao quantised weights to int8"
    ):
        pio.from_pretrained(tmp_path)


def test_descriptions_that_are_no_json_are_none(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    with safe_open(saved / "model.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = dict.fromkeys(file.metadata(), "[" * 100_000)
    save_file(tensors, tmp_path / "model.safetensors", metadata)
    with pytest.raises(ValueError, match="missing tensor: "):
        pio.from_pretrained(tmp_path)


def test_published_weights_are_quantised_while_they_are_loaded(tmp_path: Path) -> None:
    case = PUBLISHED["conv"]
    case.make().save_pretrained(tmp_path)
    config = TorchAoConfig(Int8DynamicActivationInt8WeightConfig())
    model, expected = pio.from_pretrained(tmp_path, quantization_config=config), pio.from_pretrained(tmp_path)
    assert type(model).__name__ == case.ours
    assert {type(parameter.data).__name__ for parameter in model.parameters()} == {"Int8Tensor", "Tensor"}
    torch.manual_seed(0)
    inputs = case.inputs()
    with torch.no_grad():
        found, expected = case.run_ours(model, inputs), case.run_ours(expected, inputs)
    assert 0 < relative_error(found, expected) < 0.5


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
def test_packed_integers_are_not_saved(tmp_path: Path) -> None:
    model = torch.ao.quantization.quantize_dynamic(small_models.model("mlm"), {torch.nn.Linear})
    with pytest.raises(ValueError, match="not a tensor: packed integers are not saved"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
