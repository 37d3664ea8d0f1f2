"""Folders from strangers: whatever stands in their files, loading says what is wrong, and nothing else happens."""

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz.changes import replaced
from fuzz.folders import CONFIG, INDEX, WEIGHTS, make_folder
from fuzz.trials import bounded
from safetensors.torch import load_file, save_file
from transformers import AutoModel

import perceiver_io as pio
from perceiver_io import PerceiverIOConfig
from perceiver_io.tasks.image_classification import PerceiverIOForImageClassification

LOADERS = [pio.from_pretrained, PerceiverIOForImageClassification.from_pretrained]
NOT_LOADED = (ValueError, OSError)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of ours, and a published one."""
    return {name: make_folder(name, tmp_path_factory.mktemp(name)) for name in ("images", "published")}


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the image classifier."""
    for name in (CONFIG, WEIGHTS):
        (tmp_path / name).write_bytes((folders["images"] / name).read_bytes())
    return tmp_path


def change(folder: Path, *place: Any, to: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(replaced(json.loads(path.read_text()), place, to)))


@pytest.mark.parametrize("load", [*LOADERS, PerceiverIOConfig.from_pretrained])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("null", r"config\.json must hold a JSON object, got NoneType"),
        ("5", r"config\.json must hold a JSON object, got int"),
        ("[]", r"config\.json must hold a JSON object, got list"),
        ('"model"', r"config\.json must hold a JSON object, got str"),
        ("[" * 50_000, r"config\.json is nested too deeply, expected at most 32 levels"),
        ('{"a":' * 500 + "1" + "}" * 500, r"config\.json .* nested too deeply, expected at most 32 levels"),
        ('{"a": 1, "a": 2}', r"config\.json .* the key 'a' is there twice"),
        ('{"a": NaN}', r"config\.json .* NaN is no number"),
        ('{"a": -Infinity}', r"config\.json .* -Infinity is no number"),
        ("9" * 5000, r"config\.json is not the JSON that was expected"),
        ('{"configuration_files": ["../config.5.0.0.json"]}', r"config\.json names other files"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_files_that_are_no_object(load: Any, text: str, message: str, folder: Path) -> None:
    (folder / CONFIG).write_text(text)
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize("load", [*LOADERS, AutoModel.from_pretrained])
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["dtype"], 5, "dtype must name a type of weights, .* got 5"),
        (["dtype"], "float33", "dtype must name a type of weights, .* got 'float33'"),
        (["dtype"], "Tensor", "dtype must name a type of weights, .* got 'Tensor'"),
        (["dtype"], "int8", "dtype must name a type of weights, .* got 'int8'"),
        (["torch_dtype"], 5, r"unknown keys \['torch_dtype'\]"),
        (["architectures"], "PerceiverIO", "architectures must be a list of class names"),
        (["architectures"], [1], "architectures must be a list of class names"),
        (["id2label"], ["cat", "dog", "eel"], "id2label must name classes by their index"),
        (["id2label"], {"a": "cat", "b": "dog", "c": "eel"}, "id2label must name classes by their index"),
        (["id2label"], {"0": "cat", "1": "dog", "7": "eel"}, "id2label must name classes by their index"),
        (["label2id"], {"cat": "0"}, "label2id must give the index of each class by its name"),
        (["problem_type"], ["guessing"], "problem_type must be str"),
        (["format_version"], True, "format version True"),
        (["encoder", "num_latents"], -3, "num_latents must be at least 1, got -3"),
        (["encoder", "num_latents"], True, "num_latents must be int, got True"),
        (["encoder", "num_latents"], 1e30, "num_latents must be int, got 1e\\+30"),
        (["encoder", "num_latents"], 10**12, r"latents.weight is \(3, 8\), expected \(1000000000000, 8\)"),
        (["encoder", "num_latents"], 2**62, "PerceiverIO.* of these settings cannot be built"),
        (["encoder", "num_latents"], 10**30, r"num_latents must be int, got 10+, which 64 bits cannot hold"),
        (["encoder", "num_blocks"], 10**12, "An encoder has at most 1,000 layers"),
        (["encoder", "num_self_attends_per_block"], 10**12, "An encoder has at most 1,000 layers"),
        (
            ["encoder", "dropout"],
            float("inf"),
            "EncoderConfig.dropout must be float, got inf|Infinity is no number",
        ),
        (["encoder", "latent_std"], 10**400, "EncoderConfig.latent_std must be float"),
        (["encoder", "latent_std"], 0, "latent_std must be above zero"),
        (["inputs", "image", "image_channels"], 10**9, "Elements have at most 1,000,000 channels"),
        (
            ["outputs", "label", "num_classes"],
            10**12,
            r"expected \(1000000000000,|At most 10,000,000|names 3 classes",
        ),
    ],
)
def test_values_that_cannot_be(load: Any, place: list[str], value: Any, message: str, folder: Path) -> None:
    change(folder, *place, to=value)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_classes_without_names_are_counted_first(folder: Path) -> None:
    for place, value in ((("id2label",), None), (("label2id",), None)):
        change(folder, *place, to=value)
    change(folder, "outputs", "label", "num_classes", to=10**12)
    with pytest.raises(ValueError, match="At most 10,000,000 classes can have names"):
        pio.from_pretrained(folder)


def safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


DAMAGED = {
    "empty": b"",
    "text": b"not a tensor in sight",
    "a header without end": struct.pack("<Q", 2**62) + b"{}",
    "no JSON": safetensors(b"}{"),
    "a list": safetensors([1]),
    "a tensor outside": safetensors({"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}, b"1234"),
    "a tensor of another size": safetensors(
        {"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, b"1234"
    ),
    "an unknown type": safetensors({"x": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
    "nothing": safetensors({}),
    "a pickle": b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("load", [*LOADERS, AutoModel.from_pretrained])
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_weights(load: Any, name: str, folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(DAMAGED[name])
    with pytest.raises(ValueError, match=rf"{WEIGHTS} cannot be read|do not fit"):
        load(folder)


def test_whole_numbers_for_weights_are_refused_or_converted(folder: Path) -> None:
    model = pio.from_pretrained(folder)
    save_file(
        {name: tensor.to(torch.int8) for name, tensor in model.state_dict().items()},
        folder / WEIGHTS,
        {"format": "pt"},
    )
    loaded = pio.from_pretrained(folder)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("load", [*LOADERS, AutoModel.from_pretrained])
@pytest.mark.parametrize(
    "index",
    [
        "",
        "null",
        "[]",
        "{}",
        "[" * 50_000,
        '{"weight_map": 5}',
        '{"metadata": {}, "weight_map": {"a": 5}}',
        json.dumps({"weight_map": {"a": "elsewhere.safetensors"}}),
        json.dumps({"metadata": {"dtype": 5}, "weight_map": {"a": "elsewhere.safetensors"}}),
        '{"metadata": {}, "weight_map": {"a": ["b"]}}',
        *(
            json.dumps({"metadata": {}, "weight_map": {"a": name}})
            for name in ("../elsewhere.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", "a\u0000b")
        ),
    ],
    ids=lambda text: text[:60],
)
def test_hostile_indices(load: Any, index: str, folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "elsewhere.safetensors")
    (folder / INDEX).write_text(index)
    with pytest.raises(ValueError, match=r"The index of the weights .*index\.json cannot be read"):
        load(folder)


@pytest.mark.parametrize("load", [*LOADERS, AutoModel.from_pretrained])
def test_an_index_of_safetensors_names_no_pickles(load: Any, folder: Path) -> None:
    torch.save(pio.from_pretrained(folder).state_dict(), folder / "weights.bin")
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"a": "weights.bin"}}))
    with pytest.raises(ValueError, match=r"must name \.safetensors files beside it"):
        load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("load", [*LOADERS, AutoModel.from_pretrained])
def test_weights_that_are_no_numbers_are_noticed(
    load: Any, dtype: torch.dtype, value: float, folder: Path
) -> None:
    """One NaN in the weights of queries moved logits by 0.3, and nothing said so."""
    model = pio.from_pretrained(folder).to(dtype)
    name = next(name for name, _ in model.named_parameters() if name.endswith("query.weight"))
    with torch.no_grad():
        model.get_parameter(name)[-1, -1] = value
    model.save_pretrained(folder)
    message = (
        rf"are damaged: 1 of the \d+ tensors .* hold NaN or infinities(.|\n)*\n  (perceiver\.)?{name[10:]}$"
    )
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_of_many_damaged_tensors_some_are_named(folder: Path) -> None:
    model = pio.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    model.save_pretrained(folder)
    count = len(model.state_dict())
    with pytest.raises(ValueError, match=rf"\n  and {count - 10} more$") as error:
        pio.from_pretrained(folder)
    assert str(error.value).count("\n") == 11


def test_largest_numbers_are_numbers(folder: Path) -> None:
    model = pio.from_pretrained(folder).half()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(65504)
    model.save_pretrained(folder)
    loaded = pio.from_pretrained(folder, dtype=torch.float16)
    assert all(bool((parameter == 65504).all()) for parameter in loaded.parameters())


def test_misfits_are_a_few_lines_whatever_tensors_are_called(folder: Path) -> None:
    names = ["\x1b[2J\x1b[31mgone\n  missing tensor: all of them\u202e", *map(str, range(5_000))]
    save_file({name: torch.zeros(1) for name in names}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(ValueError, match="do not fit") as error:
        PerceiverIOForImageClassification.from_pretrained(folder, ignore_mismatched_sizes=True)
    text = str(error.value)
    assert text.count("\n") == 11 and len(text) < 3_000
    assert text.replace("\n", "").isprintable()


def bin_of(folders: dict[str, Path], folder: Path) -> dict[str, torch.Tensor]:
    """Makes a folder of the published model with pytorch_model.bin, and returns what lies in it."""
    (folder / CONFIG).write_bytes((folders["published"] / CONFIG).read_bytes())
    tensors: dict[str, torch.Tensor] = load_file(folders["published"] / WEIGHTS)
    torch.save(tensors, folder / "pytorch_model.bin")
    pio.from_pretrained(folder)
    return tensors


def test_pickles_that_inflate_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    bin_of(folders, tmp_path)
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"its parts are compressed, or more than the file has room for"):
        pio.from_pretrained(tmp_path)


def test_pickles_that_repeat_what_they_hold_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    tensors = bin_of(folders, tmp_path)
    torch.save(
        {name: torch.zeros(1).expand(tensor.shape) for name, tensor in tensors.items()}
        | {"more": torch.zeros(1).expand(10**6, 10**6)},
        tmp_path / "pytorch_model.bin",
    )
    with pytest.raises(ValueError, match=r"describes tensors of 4,000,.*they repeat what they hold"):
        pio.from_pretrained(tmp_path)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor", "ignore:TypedStorage is deprecated")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    "make",
    [
        torch.Tensor.to_sparse,
        torch.Tensor.to_sparse_csr,
        lambda tensor: tensor.to("meta"),
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda tensor: torch.nested.nested_tensor([tensor[0], tensor[1, :2]]),
    ],
    ids=["coo", "csr", "meta", "quantised", "nested"],
)
def test_pickles_hold_plain_tensors(make: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    tensors = bin_of(folders, tmp_path)
    torch.save({**tensors, next(iter(tensors)): make(torch.eye(3))}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"expected plain numbers|is refused: it asks for") as error:
        pio.from_pretrained(tmp_path)
    assert len(str(error.value)) < 1_000


@pytest.mark.parametrize("load", [*LOADERS, AutoModel.from_pretrained])
@pytest.mark.parametrize("text", ["{}", "null", '{"peft_type": "LORA", "megatron_core": "os"}'])
def test_adapters_are_not_loaded_unasked(load: Any, text: str, folder: Path) -> None:
    """`transformers` hands them to peft, which changed the model, or failed in its own ways."""
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"also holds an adapter of peft \(adapter_config\.json\), which is not"
    ):
        load(folder)


@pytest.mark.parametrize("content", [b"[" * 10**7, b'{"a":' * 10**6, b"[],", b"{},", b"1,", b'"",'])
def test_megabytes_of_json(content: bytes, folder: Path) -> None:
    text = content if len(content) > 10 else b'{"a": [' + content * (16 * 10**6 // len(content)) + b"1]}"
    (folder / CONFIG).write_bytes(text)
    message = r"config\.json (describes more than|is nested)"
    with bounded(most_bytes=512 * 2**20), pytest.raises(ValueError, match=message):
        pio.from_pretrained(folder)
