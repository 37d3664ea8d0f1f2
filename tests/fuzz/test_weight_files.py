"""Files of weights, changed: what is read is what another reader finds there, or an error says what is wrong."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import perceiver_io as pio
from fuzz.changes import changed_bytes, changed_values, json_like
from fuzz.folders import CONFIG, INDEX, WEIGHTS, make_folder
from fuzz.trials import Refused, cases, tried
from perceiver_io.weight_files import find_weights, read_tensors, tensor_shapes

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning"
)  # of what a pickle asks for

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def parsed(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file, read by the words of its format."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def written(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def tensors_of(content: bytes) -> dict[str, torch.Tensor]:
    header, data = parsed(content)
    found = {}
    for name, one in header.items():
        if name != "__metadata__":
            begin, end = one["data_offsets"]
            bits = torch.frombuffer(bytearray(data[begin:end] or b"\0"), dtype=torch.uint8)[: end - begin]
            found[name] = bits.view(DTYPES[one["dtype"]]).reshape(one["shape"])
    return found


def bits_of(tensor: torch.Tensor) -> bytes:
    bits = tensor.contiguous().flatten().view(torch.uint8)
    return (bits != 0 if tensor.dtype == torch.bool else bits).numpy().tobytes()


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Bit by bit."""
    return (first.dtype, first.shape, bits_of(first)) == (second.dtype, second.shape, bits_of(second))


def file_of(tensors: Mapping[str, torch.Tensor]) -> bytes:
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, tensor in tensors.items():
        offsets = [len(data), len(data) + tensor.nbytes]
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        data += bits_of(tensor)
    return written(header, data)


SMALL = file_of(
    {
        f"a.{name}": torch.arange(shape).reshape(2, -1).to(dtype)
        for (name, dtype), shape in zip(DTYPES.items(), [2, 0, 4, 6, 8, 2, 4, 300, 2, 2, 500, 8], strict=True)
    }
)


def check_file(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    tensors = tried(read_tensors, str(path))
    shapes = tried(tensor_shapes, str(path))
    if isinstance(tensors, Refused):
        return
    assert shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    expected = tensors_of(content)
    assert tensors.keys() == expected.keys()
    assert all(same(tensor, expected[name]) for name, tensor in tensors.items())


@cases(few=40)
@given(header=changed_values(parsed(SMALL)[0]))
@example(header=parsed(SMALL)[0])
def test_headers(header: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_file(written(header, parsed(SMALL)[1]), tmp_path_factory.getbasetemp() / "headers.safetensors")


@cases(few=40)
@given(
    content=changed_bytes(SMALL, pieces=[b"{", b'"F8_E4M3"', b"[0,0]", b'"shape":', b"18446744073709551616"])
)
def test_bytes(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_file(content, tmp_path_factory.getbasetemp() / "bytes.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder("images", tmp_path_factory.mktemp("images"))
    pio.from_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def changing(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same configuration."""
    changing = tmp_path_factory.mktemp("changing")
    (changing / CONFIG).write_bytes((folder / CONFIG).read_bytes())
    return changing


@cases(few=12)
@given(data=st.data())
def test_types_of_weights(data: st.DataObject, folder: Path, changing: Path) -> None:
    """Each tensor of a model in any type, some of its numbers odd: it is converted, or none is."""
    few = data.draw(st.sampled_from([["F32", "F16", "BF16"], ["F32", "F64"], list(DTYPES)]))
    tensors = tensors_of((folder / WEIGHTS).read_bytes())
    choices = data.draw(st.binary(min_size=len(tensors), max_size=len(tensors)))
    given = {
        name: tensor.to(DTYPES[few[choice % len(few)]])
        for choice, (name, tensor) in zip(choices, tensors.items(), strict=True)
    }
    for _ in range(data.draw(st.integers(0, 1))):
        changed = given[data.draw(st.sampled_from(sorted(given)))]
        odd = data.draw(st.sampled_from([math.nan, math.inf, -math.inf, 1e38, 448.0, 1.0]))
        if changed.is_floating_point():
            place = data.draw(st.integers(0, changed.numel() - 1))
            changed.view(-1)[place] = torch.tensor(odd).to(changed.dtype)
    finite = all(bool(torch.isfinite(tensor.float()).all()) for tensor in given.values())
    (changing / WEIGHTS).write_bytes(file_of(given))
    model = tried(pio.from_pretrained, changing, dtype=torch.float32)
    if isinstance(model, Refused):
        assert not finite or set(few) == set(DTYPES), model.error
        return
    assert finite
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor.float()) for name, tensor in given.items())


@cases(few=12)
@given(data=st.data())
def test_weights_of_a_model(data: st.DataObject, folder: Path, changing: Path) -> None:
    """Header or bytes of a model's file changed: what is loaded is in the file."""
    content = (folder / WEIGHTS).read_bytes()
    header, values = parsed(content)
    if data.draw(st.booleans()):
        content = written(data.draw(changed_values(header)), values)
    else:
        content = content[: -len(values)] + data.draw(changed_bytes(values, most=1))
    (changing / WEIGHTS).write_bytes(content)
    model = tried(pio.from_pretrained, changing)
    if not isinstance(model, Refused):
        found = tensors_of(content)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor.float(), found[name].float())


@pytest.fixture(scope="module")
def sharded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sharded = tmp_path_factory.mktemp("sharded")
    pio.from_pretrained(folder).save_pretrained(sharded, max_shard_size="2KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    return sharded


@cases(few=20)
@given(data=st.data())
def test_indices(
    data: st.DataObject, folder: Path, sharded: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    original = json.loads((sharded / INDEX).read_text())
    index = data.draw(changed_values(original) | json_like())
    changed = tmp_path_factory.getbasetemp() / "sharded-changed"
    changed.mkdir(exist_ok=True)
    for file in (CONFIG, *(one.name for one in sharded.glob("*.safetensors"))):
        if not (changed / file).exists():
            (changed / file).symlink_to(sharded / file)
    (changed / INDEX).write_text(json.dumps(index))
    files = tried(find_weights, changed, (WEIGHTS,), {})
    model = tried(pio.from_pretrained, changed)
    if not isinstance(model, Refused):
        assert {Path(file).parent for file in files} == {changed}
        expected = tensors_of((folder / WEIGHTS).read_bytes())
        assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


# Pickles of PyTorch.


def saved(content: Any, *, new: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


# In files of 2019 nobody, not even PyTorch, can read numbers of 8 bits.
OLD_TYPES = [dtype for dtype in DTYPES.values() if "float8" not in str(dtype)]


@st.composite
def state_dicts(draw: st.DrawFn, dtypes: list[torch.dtype]) -> dict[str, torch.Tensor]:
    """Tensors of any type and shape, some of them views of others, parameters, or the same."""
    found: dict[str, torch.Tensor] = draw(st.sampled_from([dict, OrderedDict]))()
    for index in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["own", "own", "view", "same", "parameter"]))
        others = list(found.values())
        if kind in ("own", "parameter") or not others:
            shape = draw(st.lists(st.integers(0, 4), max_size=4))
            tensor = torch.randint(0, 9, shape).to(draw(st.sampled_from(dtypes)))
            if kind == "parameter" and tensor.is_floating_point():
                tensor = torch.nn.Parameter(tensor)
        else:
            tensor = draw(st.sampled_from(others))
            if kind == "view" and tensor.ndim:
                tensor = draw(
                    st.sampled_from([tensor[::2], tensor.mT if tensor.ndim > 1 else tensor, tensor[:1]])
                )
        found[draw(st.text(max_size=6)) + str(index)] = tensor
    return found


@cases(few=40)
@given(data=st.data(), new=st.booleans())
def test_pickles_that_torch_saves(
    data: st.DataObject, new: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = data.draw(state_dicts([*DTYPES.values()] if new else OLD_TYPES))
    path = tmp_path_factory.getbasetemp() / "saved.bin"
    path.write_bytes(saved(content, new=new))
    found = tried(read_tensors, str(path))
    if isinstance(found, Refused):
        assert "repeat what they hold" in str(found.error)
        return
    assert list(found) == list(content)
    for name, tensor in content.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name].float(), tensor.float())
    assert tensor_shapes(str(path)) == {name: tuple(tensor.shape) for name, tensor in content.items()}


TENSORS = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "a.bias": torch.zeros(3).half(),
    "b": torch.ones(99, dtype=torch.int64),
}
WORDS = [
    *(
        b"\x85",
        b"\x86",
        b"q\x00",
        b"h\x00",
        b")",
        b"}",
        b"]",
        b"(",
        b"t",
        b"R",
        b"b",
        b"Q",
        b"J\xff\xff\xff\x7f",
        b"N",
        b"s",
        b"u",
    ),
    *(
        b"cbuiltins\nbytearray\n",
        b"c_codecs\nencode\n",
        b"ctorch\nTensor\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
    ),
    *(
        b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n",
        b"ctorch\nFloatStorage\n",
        b"cos\nsystem\n",
        b"X\x04\x00\x00\x00ls -",
    ),
]


def check_tensors(path: Path, content: bytes) -> None:
    """What is answered has no more numbers than the file has room for, and names that are texts."""
    path.write_bytes(content)
    found = tried(read_tensors, str(path))
    shapes = tried(tensor_shapes, str(path))
    if isinstance(found, Refused):
        return
    assert all(
        type(name) is str and type(tensor) in (torch.Tensor, torch.nn.Parameter)
        for name, tensor in found.items()
    )
    assert sum(tensor.nbytes for tensor in found.values()) <= 4 * len(content)
    assert shapes == {name: tuple(tensor.shape) for name, tensor in found.items()}
    for tensor in found.values():
        tensor.double().sum()  # reads every number


@pytest.mark.parametrize("new", [True, False])
@cases(few=40)
@given(data=st.data())
def test_bytes_of_pickles(data: st.DataObject, new: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = data.draw(changed_bytes(saved(TENSORS, new=new), pieces=WORDS))
    check_tensors(tmp_path_factory.getbasetemp() / "changed.bin", content)


@cases(few=40)
@given(data=st.data())
def test_programs_in_archives(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The pickle in an archive is another one, the archive around it whole."""
    with zipfile.ZipFile(io.BytesIO(saved(TENSORS, new=True))) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    (program,) = (name for name in parts if name.endswith("data.pkl"))
    parts[program] = data.draw(changed_bytes(parts[program], pieces=WORDS))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    check_tensors(tmp_path_factory.getbasetemp() / "program.bin", file.getvalue())


@cases(few=40)
@given(
    content=json_like()
    | st.dictionaries(st.text(max_size=5) | st.integers(), st.just(torch.zeros(2)) | json_like()),
    new=st.booleans(),
)
def test_pickles_of_other_things(content: Any, new: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "others.bin"
    path.write_bytes(saved(content, new=new))
    found = tried(read_tensors, str(path))
    is_plain = isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    )
    assert is_plain or isinstance(found, Refused)
    if is_plain and len(content) < 50:
        assert not isinstance(found, Refused) and found.keys() == content.keys()
