"""config.json and what lies beside it, changed: what is loaded is what the files say, or an error says what is."""

from __future__ import annotations

import copy
import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, event, given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torchao.quantization import Int8WeightOnlyConfig
from torchao.utils import TorchAOBaseTensor
from transformers import TorchAoConfig

import perceiver_io as pio
from fuzz.changes import ODD_VALUES, changed_bytes, changed_values, json_like, near, places, value_at
from fuzz.folders import CONFIG, OTHERS, OURS, WEIGHTS, make_folder
from fuzz.trials import Refused, cases, tried
from perceiver_io import PerceiverIOConfig

pytestmark = pytest.mark.filterwarnings("ignore:mean is more than 2 std")  # torch, of a large latent_std

PYTHON = [make().config for make in OURS.values()]
IN_PYTHON = [
    torch.float32,
    object(),
    b"image",
    (1, 2),
    [1, 2],
    ("a",),
    1j,
    math.nan,
    math.inf,
    len,
    {1: 2},
    "bogus",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {name: make_folder(name, tmp_path_factory.mktemp(name)) for name in (*OURS, *OTHERS)}
    for folder in found.values():
        pio.from_pretrained(folder)  # so that all modules are imported
    return found


@pytest.fixture(scope="module")
def whole(folders: dict[str, Path]) -> dict[str, Any]:
    """The tensors of each published model."""
    return {name: pio.from_pretrained(folders[name]).state_dict() for name in OTHERS}


@pytest.fixture(scope="module")
def linked(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with the weights of the others, whose other files change from case to case."""
    found = {name: tmp_path_factory.mktemp(f"{name}-changed") for name in (*OURS, *OTHERS)}
    for name, folder in found.items():
        for file in folders[name].iterdir():
            if file.suffix in (".safetensors", ".bin"):
                (folder / file.name).symlink_to(file)
    return found


def as_read(value: Any) -> Any:
    """What JSON makes of a value, whole numbers as the floats they may become."""
    if isinstance(value, dict):
        return {key: as_read(one) for key, one in value.items()}
    if isinstance(value, list):
        return [as_read(one) for one in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def check_weights(model: Any, file: Path) -> None:
    """Every tensor is that of the file, bit by bit where the type is the same."""
    # A configuration that names no class is that of the model within the task's.
    loaded, state = (
        {name.removeprefix("perceiver."): tensor for name, tensor in tensors.items()}
        for tensors in (load_file(file), model.state_dict())
    )
    assert state.keys() == loaded.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, loaded[name].to(tensor.dtype))
        assert torch.isfinite(tensor).all()


def check_settings(config: PerceiverIOConfig, given: Any) -> None:
    """Every part is as the file says it, and survives another round."""
    config._name_or_path = ""  # where it was read
    kept = config.to_dict()
    for part in ("inputs", "encoder", "outputs", "packing", "shared_attention"):
        for place in places(given.get(part)):
            value = value_at(given[part], place) if given.get(part) is not None else None
            if value is not None and not isinstance(value, (dict, list)) and place != ("type",):
                assert as_read(value_at(kept[part], place)) == as_read(value), (part, place)
    assert PerceiverIOConfig.from_dict(json.loads(json.dumps(kept))).to_dict() == kept


@pytest.mark.parametrize("name", OURS)
@cases(few=15)
@given(data=st.data())
def test_configurations_of_ours(
    data: st.DataObject, name: str, folders: dict[str, Path], linked: dict[str, Path]
) -> None:
    values = data.draw(changed_values(json.loads((folders[name] / CONFIG).read_text())))
    (linked[name] / CONFIG).write_text(json.dumps(values))
    model = tried(pio.from_pretrained, linked[name])
    if not isinstance(model, Refused):
        check_settings(model.config, values)
        check_weights(model, folders[name] / WEIGHTS)


@pytest.mark.parametrize("name", OTHERS)
@cases(few=10)
@given(data=st.data())
def test_configurations_of_others(
    data: st.DataObject, name: str, folders: dict[str, Path], linked: dict[str, Path], whole: dict[str, Any]
) -> None:
    values = data.draw(changed_values(json.loads((folders[name] / CONFIG).read_text())))
    (linked[name] / CONFIG).write_text(json.dumps(values))
    model = tried(pio.from_pretrained, linked[name])
    if not isinstance(model, Refused):
        state = model.state_dict()
        assert state.keys() == whole[name].keys()
        assert all(torch.equal(state[key], tensor) for key, tensor in whole[name].items())


PIECES = [b"NaN", b"Infinity", b"1e999", b"-0", b"[" * 40, b'{"a":', b'"inputs": 1,', b"\\ud800", b"\xff"]


@cases(few=40)
@given(data=st.data())
def test_texts_of_configurations(
    data: st.DataObject, folders: dict[str, Path], linked: dict[str, Path]
) -> None:
    """The file as text: what is no JSON, or JSON that others read in another way."""
    original = (folders["images"] / CONFIG).read_bytes()
    content = data.draw(changed_bytes(original, pieces=PIECES))
    (linked["images"] / CONFIG).write_bytes(content)
    config = tried(PerceiverIOConfig.from_pretrained, linked["images"])
    if not isinstance(config, Refused):
        check_settings(config, json.loads(content))


@cases(few=40)
@given(data=st.data())
def test_configurations_compute(data: st.DataObject, folders: dict[str, Path]) -> None:
    """A configuration that is accepted is that of a model that can be built, and computes numbers."""
    original = json.loads((folders["images"] / CONFIG).read_text())
    values = data.draw(changed_values(original, most=3))
    config = tried(PerceiverIOConfig.from_dict, values)
    if isinstance(config, Refused):
        return
    shapes = tried(pio.PerceiverIO.tensor_shapes, config)
    if isinstance(shapes, Refused) or sum(map(math.prod, shapes.values())) > 10**6:
        event("not built")
        return
    model = tried(pio.PerceiverIO, config)
    assert not isinstance(model, Refused), model.error
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == shapes
    event("built")


@pytest.fixture(scope="module")
def quantized(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized")
    settings = TorchAoConfig(Int8WeightOnlyConfig())
    pio.from_pretrained(folders["images"], quantization_config=settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def quantized_numbers(quantized: Path) -> dict[str, torch.Tensor]:
    return as_numbers(pio.from_pretrained(quantized))


def as_numbers(model: Any) -> dict[str, torch.Tensor]:
    """The weights as plain numbers, those of integers too."""
    return {
        name: tensor.dequantize() if isinstance(tensor, TorchAOBaseTensor) else tensor
        for name, tensor in model.state_dict().items()
    }


@pytest.mark.filterwarnings("ignore:Stored version is not the same as current")  # torchao
@cases(few=8)
@given(data=st.data())
def test_settings_of_quantised_weights(
    data: st.DataObject,
    quantized: Path,
    quantized_numbers: dict[str, torch.Tensor],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """What torchao is told of the weights: nothing of it is run, and the weights are those of the file."""
    folder = tmp_path_factory.getbasetemp() / "quantized-changed"
    folder.mkdir(exist_ok=True)
    if not (folder / WEIGHTS).exists():
        (folder / WEIGHTS).symlink_to(quantized / WEIGHTS)
    original = json.loads((quantized / CONFIG).read_text())
    settings = data.draw(changed_values(original["quantization_config"]) | json_like())
    (folder / CONFIG).write_text(json.dumps({**original, "quantization_config": settings}))
    model = tried(pio.from_pretrained, folder)
    if not isinstance(model, Refused):
        found, expected = as_numbers(model), quantized_numbers
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.filterwarnings("ignore:Stored version is not the same as current")
@cases(few=8)
@given(data=st.data())
def test_descriptions_of_quantised_weights(
    data: st.DataObject,
    quantized: Path,
    quantized_numbers: dict[str, torch.Tensor],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """What the file itself says of its integers, which torchao puts together."""
    folder = tmp_path_factory.getbasetemp() / "described"
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).write_bytes((quantized / CONFIG).read_bytes())
    content = (quantized / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    said = {name: json.loads(text) for name, text in header["__metadata__"].items() if text[0] in "[{"}
    if data.draw(st.booleans()):
        changed = data.draw(changed_values(said))
        texts = (
            {name: json.dumps(value) for name, value in changed.items()} if isinstance(changed, dict) else {}
        )
    else:
        odd = st.sampled_from(["[" * 100_000, "", "null", "{}", "1e999", "\x1b[2J", '{"_type": "os"}'])
        texts = {name: json.dumps(value) for name, value in said.items()}
        texts[data.draw(st.sampled_from([*texts, "more"]))] = data.draw(odd)
    header["__metadata__"] |= {"tensor_names": header["__metadata__"].get("tensor_names", "[]"), **texts}
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    model = tried(pio.from_pretrained, folder)
    if not isinstance(model, Refused):
        found = as_numbers(model)
        assert found.keys() == quantized_numbers.keys()
        for name, tensor in quantized_numbers.items():
            # A type of its own may be said of each.
            assert torch.allclose(found[name].float(), tensor, rtol=0.02)


GENERATION = {
    "max_new_tokens": 3,
    "do_sample": True,
    "temperature": 0.5,
    "eos_token_id": [1, 2],
    "cache_implementation": None,
}


@cases(few=15)
@given(values=changed_values(GENERATION) | json_like())
def test_settings_of_generation(values: Any, folders: dict[str, Path], linked: dict[str, Path]) -> None:
    """generation_config.json, which `transformers` reads with a model that continues sequences."""
    (linked["continued"] / CONFIG).write_bytes((folders["continued"] / CONFIG).read_bytes())
    (linked["continued"] / "generation_config.json").write_text(json.dumps(values))
    model = tried(pio.from_pretrained, linked["continued"])
    (linked["continued"] / "generation_config.json").unlink()
    if not isinstance(model, Refused):
        check_weights(model, folders["continued"] / WEIGHTS)


@cases(few=40)
@given(data=st.data())
def test_settings_in_python(data: st.DataObject) -> None:
    """Fields that are handed over directly, not by JSON: other types, too."""
    config = data.draw(st.sampled_from(PYTHON))
    part = data.draw(st.sampled_from(["inputs", "encoder", "outputs", "packing", "shared_attention"]))
    part_config = getattr(config, part)
    name = data.draw(st.sampled_from(sorted(part_config))) if isinstance(part_config, dict) else None
    one = part_config if name is None else part_config[name]
    assume(one is not None)
    fields = copy.copy(vars(one))
    field = data.draw(st.sampled_from(sorted(fields)))
    value = fields[field]
    fields[field] = data.draw(
        near(list(value) if isinstance(value, tuple) else value) | st.sampled_from(IN_PYTHON) | ODD_VALUES
    )

    def build() -> pio.PerceiverIO:
        new = type(one)(**fields)
        with torch.device("meta"):  # how large it may be is up to whoever writes Python
            return pio.PerceiverIO(
                config.replaced(**{part: new if name is None else {**part_config, name: new}})
            )

    built = tried(build)
    if not isinstance(built, Refused):
        again = getattr(built.config, part) if name is None else getattr(built.config, part)[name]
        assert as_read(again.to_dict()[field]) == as_read(json.loads(json.dumps(fields[field])))
