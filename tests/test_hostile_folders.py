"""Folders from strangers: whatever stands in their files, loading says what is wrong, and nothing else happens."""

import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published.theirs import CASES
from safetensors.torch import load_file, save_file
from transformers import AutoModel

import perceiver_io as pio
from perceiver_io import PerceiverIO, PerceiverIOConfig
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.tasks import image_classification
from perceiver_io.tasks.image_classification import PerceiverIOForImageClassification

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
LOADERS = [pio.from_pretrained, PerceiverIOForImageClassification.from_pretrained]
NOT_LOADED = (ValueError, OSError)

HUGE = [
    10**9,
    10**12,
    2**62,
    2**63,
    10**30,
    -1,
    -(10**12),
    1e999,
    -1e999,
    1e308,
    1e-320,
    0,
    0.5,
    True,
    None,
    "",
]
VALUES = st.recursive(
    st.sampled_from(HUGE) | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind of part, and a published one."""
    found = {name: tmp_path_factory.mktemp(name) for name in ("images", "texts", "published")}
    encoder = {
        "num_latents": 3,
        "latent_channels": 8,
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2,
    }
    config = image_classification.config(
        size=(4, 4), variant="tiny", num_classes=3, image={"num_bands": 2}, encoder=encoder
    )
    PerceiverIOForImageClassification(config).save_pretrained(found["images"])
    PerceiverIO(
        PerceiverIOConfig(
            inputs={
                "text": TextAdapter.Config(vocab_size=11, max_length=9, num_channels=6, features="conv"),
                "image": ImageAdapter.Config(size=(4, 4), position="learned", position_channels=3),
            },
            encoder=pio.EncoderConfig(**encoder),
            outputs={
                "text": pio.DenseDecoder.Config(
                    output_channels=11,
                    grid=(9,),
                    grid_input="text",
                    position="learned",
                    position_channels=6,
                    position_resize="truncate",
                    channel_axis=-1,
                ),
                "age": pio.RegressionDecoder.Config(),
            },
            packing=pio.PackingConfig(mask_probabilities=(("text", 0.5),)),
            shared_attention=pio.SharedAttentionConfig(outputs=("text", "age"), output_channels=6),
        )
    ).save_pretrained(found["texts"])
    CASES["fourier"].make().save_pretrained(found["published"])
    return found


def fields(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of everything in JSON values."""
    yield place
    for key in values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ():
        yield from fields(values[key], (*place, key))


def replaced(values: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    copy = values.copy()
    copy[place[0]] = replaced(copy[place[0]], place[1:], new) if place[1:] else new
    return copy


@pytest.mark.filterwarnings("ignore:mean is more than 2 std")  # torch, of a large latent_std
@pytest.mark.parametrize(("name", "count"), [("images", 60), ("texts", 60), ("published", 20)])
def test_every_field_may_hold_anything(
    name: str, count: int, folders: dict[str, Path], tmp_path: Path
) -> None:
    original = json.loads((folders[name] / CONFIG).read_text())
    pio.from_pretrained(folders[name])
    (tmp_path / WEIGHTS).symlink_to(folders[name] / WEIGHTS)

    @settings(max_examples=count)
    @given(place=st.sampled_from(list(fields(original))), value=VALUES)
    def check(place: tuple[Any, ...], value: Any) -> None:
        (tmp_path / CONFIG).write_text(json.dumps(replaced(original, place, value)))
        try:
            pio.from_pretrained(tmp_path)
        except NOT_LOADED as error:
            assert len(str(error)) < 20_000

    check()


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
        (["encoder", "num_latents"], 10**30, "PerceiverIO.* of these settings cannot be built"),
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
    with pytest.raises(ValueError, match=r"expected plain numbers|cannot be read") as error:
        pio.from_pretrained(tmp_path)
    assert len(str(error.value)) < 1_000
