"""The restricted unpickler: what it reads, and what it refuses before anything of it has run."""

import collections
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from perceiver_io.published.unpickler import read_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
REFUSED = "is refused, and nothing in it has been run"


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def read(content: bytes, folder: Path) -> Any:
    return read_pickle(written(folder / "file.pickle", content))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="float32").reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype="float64").reshape(2, 3)),
        np.arange(24, dtype="float16").reshape(2, 3, 4).transpose(1, 0, 2),
        np.arange(12, dtype="int32")[::2],
        np.array([1.5, -2.5], dtype=">f4"),
        np.array(7, dtype="uint8"),
        np.zeros((0, 3), dtype="float32"),
        np.array([True, False]),
        np.float32(2.5),
    ],
    ids=str,
)
def test_arrays_are_read_bit_by_bit(array: np.ndarray, protocol: int, tmp_path: Path) -> None:
    found = read(pickle.dumps({"a": array, "b": [array]}, protocol=protocol), tmp_path)
    for value in (found["a"], found["b"][0]):
        assert isinstance(value, np.ndarray)
        assert value.dtype == array.dtype and value.shape == array.shape
        assert np.array_equal(value, array)


@settings(max_examples=25)
@given(
    values=st.dictionaries(
        st.text(),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False)
            | st.text()
            | st.binary()
            | npst.arrays(
                st.sampled_from(["<f4", ">f8", "<i2"]), npst.array_shapes(min_dims=0, min_side=0, max_side=3)
            ),
            lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
    ),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_plain_content_is_read_as_pickle_reads_it(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any], protocol: int
) -> None:
    content = pickle.dumps(values, protocol=protocol)
    found = read(content, tmp_path_factory.mktemp("read"))
    np.testing.assert_equal(found, pickle.loads(content))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ordered_mappings_and_shared_arrays(protocol: int, tmp_path: Path) -> None:
    array = np.arange(3.0)
    content = collections.OrderedDict(one=array, two=array)
    found = read(pickle.dumps(content, protocol=protocol), tmp_path)
    assert type(found) is dict and list(found) == ["one", "two"]
    assert found["one"] is found["two"]


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


class Plain:
    """An object of a class of somebody's."""

    def __init__(self) -> None:
        self.value = 1


class Subclass(np.ndarray):
    """An array of a class of somebody's."""


OBJECTS = np.empty(1, dtype=object)
OBJECTS[0] = Calls(print, "run")
STRUCTURES = np.zeros(2, dtype=[("a", "f4")])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "content",
    [
        Calls(os.system, "touch ran"),
        Calls(eval, "open('ran', 'w')"),
        Calls(exec, "open('ran', 'w')"),
        Calls(open, "ran", "w"),
        Calls(getattr, "text", "__class__"),
        Calls(__import__, "os"),
        Calls(subprocess.run, ["touch", "ran"]),
        Calls(np.load, "file.npy", None, True),
        Calls(np.fromfile, "file"),
        Calls(np.memmap, "ran", "float32", "w+", 0, (2,)),
        Calls(np.loadtxt, "file"),
        Calls(pickle.loads, b"N."),
        Calls(io.open_code, "/etc/passwd"),
        Calls(collections.OrderedDict, [("a", Calls(os.system, "touch ran"))]),
        Calls(type, "Made", (), {}),
        Plain(),
        Plain,
        OBJECTS,
        STRUCTURES,
        np.zeros(1).view(Subclass),
        np.array(["text"]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.array([1j]),
        np.str_("text"),
        {1: np.zeros(1)},
        {(1, 2): 3},
        {1, 2},
        frozenset([1]),
        1j,
        slice(1),
        range(3),
    ],
    ids=lambda content: type(content).__name__,
)
def test_anything_else_is_refused(
    content: Any, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Among arrays, and last: nothing may run before it is met, nor because of it.
    file = pickle.dumps({"params": {"a": {"w": np.zeros(2)}}, "state": [content]}, protocol=protocol)
    before = set(sys.modules)
    with pytest.raises(ValueError, match=REFUSED):
        read(file, tmp_path)
    assert not (tmp_path / "ran").exists()
    assert {name for name in set(sys.modules) - before if not name.startswith("encodings.")} == set()


def test_the_test_would_notice_if_something_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Calls(os.system, "touch ran")))
    assert (tmp_path / "ran").exists()


def call(module: str, name: str, arguments: bytes) -> bytes:
    """A program that calls a function."""
    return b"\x80\x04" + f"c{module}\n{name}\n".encode() + arguments + b"R."


DTYPE = b"cnumpy\ndtype\n(V<f4\nI00\nI01\ntR"
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR"


@pytest.mark.parametrize(
    "program",
    [
        # Attributes of admitted names, and names with dots, as protocol 4 allows them.
        b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
        b"\x80\x04\x8c\x05numpy\x8c\x0dcore.__init__\x93.",
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
        # Names that are made, not written.
        b"\x80\x04]\x8c\x05numpy\x93.",
        b"\x80\x04K\x01K\x02\x93.",
        # Attributes of an admitted function, class or array are set.
        b"\x80\x04cnumpy\ndtype\n}V__code__\nNsb.",
        b"\x80\x04cnumpy\nndarray\n(N}V__setstate__\nNstb.",
        b"\x80\x04" + EMPTY + b"}Vbase\nNsb.",
        b"\x80\x04}}V__class__\nNsb.",
        # Types that are only named are called; objects are made past their constructor.
        call("numpy", "ndarray", b"(I1\nt"),
        b"\x80\x04cnumpy\nndarray\n(I1\nt\x81.",
        b"\x80\x04cnumpy\nndarray\n)}\x92.",
        b"(inumpy\nndarray\n.",
        b"(cnumpy\nndarray\no.",
        # What is called is no name, or has been called already.
        b"\x80\x04K\x01)R.",
        b"\x80\x04" + DTYPE + b")R.",
        b"\x80\x04cnumpy\ndtype\nK\x01R.",
        # Arrays of other classes, of impossible shapes, of objects.
        b"\x80\x04cnumpy.core.multiarray\n_reconstruct\n(ccollections\nOrderedDict\n(I0\ntC\x01btR.",
        b"\x80\x04" + EMPTY + b"(I1\n(Vx\nt" + DTYPE + b"I00\nC\x04aaaatb.",
        b"\x80\x04" + EMPTY + b"(I1\n(" + b"I1\n" * 33 + b"t" + DTYPE + b"I00\nC\x04aaaatb.",
        b"\x80\x04" + EMPTY + b"(I1\n(I1\nt" + DTYPE + b"I00\n]tb.",
        call("numpy", "dtype", b"(VO8\nI00\nI01\nt"),
        call("numpy", "dtype", b"(V(2,2)f4\nI00\nI01\nt"),
        # JAX arrays that are made by something else.
        call("jax._src.array", "_reconstruct_array", b"(ccollections\nOrderedDict\n))}t"),
        call("jax._src.array", "_reconstruct_array", b"(K\x01))}t"),
        # Other encodings.
        call("_codecs", "encode", b"(Vtext\nVrot13\nt"),
        call("_codecs", "decode", b"(Vtext\nVlatin1\nt"),
        call("haiku._src.data_structures", "to_immutable_dict", b"(}t"),
        call("haiku._src.data_structures", "FlatMapping", b"(]t"),
        # What arrays are made of, and nothing made of it: it was handed out as it stood on the stack.
        b"\x80\x04cnumpy\ndtype\n.",
        b"\x80\x04](cnumpy\ndtype\n(V<f4\nI00\nI01\ntRe.",
        b"\x80\x04" + EMPTY + b".",
        # Extensions, persistent ids, buffers from outside.
        b"\x80\x04\x82\x01.",
        b"\x80\x04Pid\n.",
        b"\x80\x04K\x01Q.",
        b"\x80\x05\x97.",
    ],
    ids=repr,
)
def test_programs_written_by_hand_are_refused(program: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=REFUSED):
        read(program, tmp_path)


def test_the_refusal_names_what_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"file\.pickle .*It asks for (posix|nt)\.system\."):
        read(pickle.dumps(Calls(os.system, "true")), tmp_path)


GOOD = pickle.dumps({"params": {"a": {"w": np.arange(300, dtype="float32")}}}, protocol=4)


@pytest.mark.parametrize("keep", [1, 2, 5, 11, 20, len(GOOD) // 2, len(GOOD) - 1])
def test_truncated_files_are_refused(keep: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be read as a pickle: it is truncated, damaged"):
        read(GOOD[:keep], tmp_path)


def test_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is empty"):
        read(b"", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"These are no parameters.\n",
        b"<!DOCTYPE html><html></html>",
        b'{"params": {}}',
        b"PK\x03\x04 a zip file",
        b"\x1f\x8b gzip",
        b"\x93NUMPY\x01\x00",
        b"version https://git-lfs.github.com/spec/v1\n",
        bytes(range(256)),
    ],
    ids=repr,
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"file\.pickle (cannot be read as a pickle|is refused)"):
        read(content, tmp_path)


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"short.",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**64 - 1) + b"short.",
        b"\x80\x04B" + struct.pack("<I", 2**32 - 1) + b"short.",
        b"\x80\x04\x8b" + struct.pack("<i", -1) + b".",
        b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"short.",
        b"\x80\x04" + EMPTY + b"(I1\n(L" + b"9" * 30 + b"L\nt" + DTYPE + b"I00\nC\x04aaaatb.",
        b"\x80\x04" + EMPTY + b"(I1\n(I0\nL" + b"9" * 30 + b"L\nt" + DTYPE + b"I00\nC\x00tb.",
        b"\x80\x04" + EMPTY + b"(I1\n(I-1\nt" + DTYPE + b"I00\nC\x04aaaatb.",
        b"\x80\x04r" + struct.pack("<I", 2**32 - 1) + b".",
        b"\x80\x04j" + struct.pack("<I", 2**32 - 1) + b".",
    ],
    ids=repr,
)
def test_lengths_that_are_not_there_take_no_memory(program: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read as a pickle"):
        read(program, tmp_path)


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x04.",
        b"\x80\x04)t.",
        b"\x80\x04(.",
        b"\x80\x04R.",
        b"\x80\x04Ka",
        b"\x80\x04h\x05.",
        b"\x80\x04}s.",
    ],
    ids=repr,
)
def test_damaged_programs_are_refused(program: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read as a pickle"):
        read(program, tmp_path)


BINPUT, BINGET = b"q\x00", b"h\x00"
BIG = b"\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000  # LONG4
LEAVES = b"}(" + b"".join(f"V{index}\nN".encode() for index in range(1_000)) + b"u"
FROM_BUFFER = b"\x80\x04cnumpy.core.numeric\n_frombuffer\n"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        # The hash of a tuple goes as deep as it is nested: three million levels were a segmentation fault.
        (
            FROM_BUFFER + b"(C\x04aaaa" + DTYPE + b"(K\x01tVK\n(" + b")" + b"\x85" * 300_000 + b"ttR.",
            "impossible order of its axes",
        ),
        (
            b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
            "nested too deeply, expected at most 32 levels",
        ),
        (b"\x80\x04)" + b"\x85" * 300_000 + b".", "nested too deeply"),
        # 2 ** 60 times nothing.
        (
            b"\x80\x04)" + (BINPUT + BINGET + b"\x86") * 60 + b".",
            "It describes more than 100,000 values|nested too",
        ),
        (b"\x80\x04)" + (BINPUT + BINGET + b"\x86") * 25 + b".", "It describes more than 100,000 values"),
        # One dictionary of arrays in each of a thousand modules.
        (
            b"\x80\x04}(Vm\n"
            + LEAVES
            + BINPUT
            + b"".join(f"V{index}\n".encode() + BINGET for index in range(1_000))
            + b"u.",
            "It describes more than 100,000 values",
        ),
        # The product of such numbers took minutes.
        (
            FROM_BUFFER + b"(C\x04aaaa" + DTYPE + b"(" + BIG + BINPUT + BINGET * 31 + b"ttR.",
            "an array of a size that none has",
        ),
        (b"\x80\x04" + b"(" * 20_000_000, "It nests containers in more than 32 levels"),
        (b"\x80\x04" + b"N0" * 300_000 + b"N.", "It has more than 500,000 instructions"),
        # What is copied anew by every instruction.
        (
            b"\x80\x04X"
            + struct.pack("<I", 100_000)
            + b"a" * 100_000
            + BINPUT
            + b"c_codecs\nencode\nq\x01"
            + b"h\x01("
            + BINGET
            + b"Vlatin1\ntR"
            + b"h\x01("
            + BINGET
            + b"Vlatin1\ntR" * 3,
            "It makes more bytes than the file has",
        ),
        (
            b"\x80\x04" + b"cnumpy\ndtype\n(V<f4\n" + b"N" * 1_000 + b"tR.",
            r"It calls numpy\.dtype with 1,001 arguments",
        ),
        (
            b"\x80\x04}X" + struct.pack("<I", 5_000) + b"a" * 5_000 + b"Ns.",
            "a name of more than 1,000 characters",
        ),
    ],
    ids=range(12),
)
def test_what_costs_more_than_parameters_do_is_refused_within_seconds(
    program: bytes, message: str, tmp_path: Path
) -> None:
    """None of them ran anything; they took minutes, all memory, or the process with them."""
    started = time.process_time()
    with pytest.raises(ValueError, match=message) as error:
        read(program, tmp_path)
    assert time.process_time() - started < 10 and len(str(error.value)) < 1_000


def test_an_array_that_is_named_often_is_filled_once(tmp_path: Path) -> None:
    """It was put into each of its places anew for each of its names: 1.6 * 10 ** 9 steps."""
    names = 40_000
    state = b"(I1\n(I1\nt" + DTYPE + b"I00\nC\x04aaaatr" + struct.pack("<I", names)
    program = b"\x80\x04" + state + b"0" + EMPTY + b"".join(b"r" + struct.pack("<I", n) for n in range(names))
    again = b"j" + struct.pack("<I", names) + b"b0"
    started = time.process_time()
    read(program + (b"h\x00" * names) + again * names + again[:-1] + b".", tmp_path)
    assert time.process_time() - started < 10


def test_content_that_holds_itself_is_refused(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["a"] = endless
    with pytest.raises(ValueError, match="nested too deeply"):
        read(pickle.dumps(endless), tmp_path)


@settings(max_examples=200)
@given(position=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused_clearly(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int
) -> None:
    content = GOOD[:position] + bytes([byte]) + GOOD[position + 1 :]
    try:
        read(content, tmp_path_factory.mktemp("changed"))
    except ValueError as error:
        assert "cannot be read as a pickle" in str(error) or REFUSED in str(error)


def test_every_instruction_is_known_or_refused(tmp_path: Path) -> None:
    from perceiver_io.published import unpickler

    known = {
        *unpickler._VALUES,
        *unpickler._CONSTANTS,
        *unpickler._INSTRUCTIONS,
        "PROTO",
        "FRAME",
        "STOP",
    }
    names = {opcode.name for opcode in pickletools.opcodes}
    assert known <= names
    # Those that make objects, or bring in something from outside.
    assert {
        "NEWOBJ",
        "NEWOBJ_EX",
        "INST",
        "OBJ",
        "PERSID",
        "BINPERSID",
        "EXT1",
        "EXT2",
        "EXT4",
    } <= names - known


def test_missing_files_are_os_errors(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no_such_file"):
        read_pickle(tmp_path / "no_such_file")
