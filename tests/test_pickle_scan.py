"""A look through pickles: deep and long ones are found, whole ones are read to their end, nothing is made of them."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.pickle_scan import check_pickle
from perceiver_io.weight_files import read_tensors, tensor_shapes

VALUES = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.tuples(inner, inner) | st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=10,
)


@given(values=st.lists(VALUES, max_size=4), protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_pickles_end_where_python_says(values: list[Any], protocol: int) -> None:
    file = io.BytesIO(b"".join(pickle.dumps(value, protocol) for value in values))
    ends = io.BytesIO(file.getvalue())
    for value in values:
        check_pickle(file)
        assert pickle.load(ends) == value
        assert file.tell() == ends.tell()


@given(depth=st.integers(1, 60), protocol=st.integers(0, pickle.HIGHEST_PROTOCOL), width=st.integers(1, 4))
def test_levels_are_counted(depth: int, protocol: int, width: int) -> None:
    value: Any = 0
    for _ in range(depth):
        value = (value, *range(width - 1))
    file = io.BytesIO(pickle.dumps([value], protocol))
    if depth <= 32:
        check_pickle(file)
    else:
        with pytest.raises(ValueError, match="nests tuples in more than 32 levels"):
            check_pickle(file)


DEEP = {
    "a key": b"\x80\x02})" + b"\x85" * 300_000 + b"Ns.",
    "by the memo": b"\x80\x02})" + b"q\x00h\x00\x86" * 300 + b"Ns.",
    "of marks": b"\x80\x02}(" + b"(" * 33 + b"t" * 33 + b"Nu.",
    "doubled": b"\x80\x02})" + b"2\x86" * 300 + b"Ns.",
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("new", [True, False])
def test_deep_tuples_do_not_end_the_process(name: str, new: bool, tmp_path: Path) -> None:
    """PyTorch's reader hashed them: a segmentation fault."""
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=new)
    if new:
        with zipfile.ZipFile(path) as archive:
            parts = {part.filename: archive.read(part) for part in archive.infolist()}
        with zipfile.ZipFile(path, "w") as archive:
            for part, content in parts.items():
                archive.writestr(part, DEEP[name] if part.endswith("data.pkl") else content)
    else:
        path.write_bytes(DEEP[name] + path.read_bytes())
    with pytest.raises(ValueError, match="it nests tuples in more than 32 levels"):
        read_tensors(str(path))


def test_long_pickles_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 500,000 instructions"):
        check_pickle(io.BytesIO(b"\x80\x02" + b"N0" * 300_000 + b"N."))


@pytest.mark.parametrize("new", [True, False])
def test_models_are_read_in_both_formats(new: bool, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    torch.save(model.state_dict(), tmp_path / "x.bin", _use_new_zipfile_serialization=new)
    found = read_tensors(str(tmp_path / "x.bin"))
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())
    assert tensor_shapes(str(tmp_path / "x.bin")) == {name: tuple(one.shape) for name, one in found.items()}


LARGE = {
    "zeros": b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x7f\x85R.",
    "doubled": b"\x80\x02X\x01\x00\x00\x00a"
    + b"q\x000c_codecs\nencode\nh\x00X\x03\x00\x00\x00hex\x86R" * 60
    + b".",
    "a set": b"\x80\x02c__builtin__\nset\n]\x85R.",
    "a sparse tensor": b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n)R.",
}


@pytest.mark.parametrize("name", LARGE)
def test_bytes_out_of_nothing_are_refused(name: str, tmp_path: Path) -> None:
    """PyTorch's restricted reader calls `bytearray` with any number, and has every codec double bytes: gigabytes."""
    (tmp_path / "x.bin").write_bytes(LARGE[name])
    with pytest.raises(ValueError, match=r"is refused: it asks for .*Nothing in it has been run"):
        read_tensors(str(tmp_path / "x.bin"))


def archive(program: bytes) -> bytes:
    """A file as torch.save writes it, with another program."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as parts:
        parts.writestr("x/data.pkl", program)
        parts.writestr("x/version", b"3\n")
    return file.getvalue()


def with_two_directories(checked: bytes, used: bytes) -> bytes:
    """The end says where the first is; Python's reader takes the one before the end, and skips the rest."""
    assert len(checked) == len(used)
    return archive(used)[:-22] + archive(checked)


HARMFUL = b"\x80\x02}q\x00" + b")" + b"\x85" * 99 + b"Ns."
PLAIN = b"\x80\x02}" + b"q\x00" * 52 + b"."


@pytest.mark.parametrize(
    "content",
    [
        with_two_directories(PLAIN, HARMFUL),
        HARMFUL + archive(PLAIN),  # PyTorch takes it for a file of 2019, Python for an archive
        archive(PLAIN) + archive(PLAIN),
        archive(PLAIN) + b"\0",
        archive(PLAIN)[:-2] + b"\1\0 ",
    ],
    ids=["two directories", "a pickle before", "an archive before", "a byte after", "a comment"],
)
def test_what_is_read_is_what_was_checked(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(archive(PLAIN))
    assert read_tensors(str(path)) == {}
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be read .*(directory is not where|nests tuples)"):
        read_tensors(str(path))


def test_the_two_directories_are_two(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(with_two_directories(PLAIN, HARMFUL))
    with zipfile.ZipFile(path) as parts:
        assert parts.read("x/data.pkl") == PLAIN
    with open(path, "rb") as file:
        assert torch._C.PyTorchFileReader(file).get_record("data.pkl") == HARMFUL
