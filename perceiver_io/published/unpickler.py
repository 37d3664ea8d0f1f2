"""Reads pickles of arrays and mappings without running anything in them.

A pickle is a program: it names functions to import and call. Here nothing is imported and nothing of it called. The
instructions are decoded by `pickletools` and carried out by the small machine below, which knows plain values,
containers, NumPy arrays, and the names under which JAX and Haiku pickle arrays and mappings. Any other name or
instruction is refused, and so is a program that costs more than the parameters of a model do (`perceiver_io.budget` and
the limits below): a few bytes can ask for more time and memory than there is.
"""

from __future__ import annotations

import math
import mmap
import os
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perceiver_io.budget import MOST_LEVELS, MOST_VALUES, check_nesting
from perceiver_io.printable import printable

__all__ = ["read_pickle"]

# The published models have up to 457 arrays, of at most 38 instructions each; an optimizer keeps two more of each.
_MOST_INSTRUCTIONS = 500_000
_NEWEST_PROTOCOL = 5
_FRAME_HEADER = 9
_LONGEST_NAME = 1_000
_MOST_ARGUMENTS = 8
_LARGEST_SIZE = 2**63 - 1


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """Reads a pickle that holds numbers, strings, containers and arrays.

    Haiku's mappings become dictionaries, JAX's arrays become NumPy arrays (read-only ones); neither package is needed.

    Args:
        path: The file.

    Raises:
        ValueError: The file is no pickle, is damaged, asks for anything else, or for more than is admitted. Nothing in
            it has been run.
        OSError: The file cannot be opened.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise ValueError(f"{path} is empty, expected a pickle of parameters. Fetch it again.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                found = _Machine(most_bytes=len(content)).run(content)
                _check_size(found)
                _check_made(found)
                return found
            except _RefusedError as error:
                raise ValueError(
                    f"{path} is refused, and nothing in it has been run: {error} A parameter file holds arrays and "
                    "mappings, nothing else."
                ) from None
            except Exception as error:
                # Whatever a damaged program leads to: an empty stack, a mark that is not there, text that is no text.
                raise ValueError(
                    f"{path} cannot be read as a pickle: it is truncated, damaged, or something else ({error!r:.200}). "
                    "Fetch it again."
                ) from error


class _RefusedError(Exception):
    """The pickle asks for something that is not admitted."""


@dataclass(frozen=True)
class _Admitted:
    """What stands on the stack for a name that the pickle may use; `build` makes what calling it would give."""

    name: str
    build: Callable[..., Any]


@dataclass
class _DType:
    """A data type of numbers; its byte order comes later."""

    code: str
    order: str = "="

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


@dataclass
class _EmptyArray:
    """An array whose content comes later, and the places in the memo that must then hold it."""

    memo_keys: list[int] = field(default_factory=list)


def _shown(value: Any) -> str:
    """A text shortened; of all else the type only, because what a pickle nests can be endless."""
    return repr(value[:40]) if isinstance(value, str) else type(value).__name__


def _check_size(values: Any) -> None:
    try:
        check_nesting(values, most_values=MOST_VALUES)
    except ValueError as error:
        raise _RefusedError(f"{str(error).capitalize()}") from None


def _check_made(value: Any) -> None:
    """Refuses what only stands for something: a name that is not called, an array without content."""
    if isinstance(value, (_Admitted, _DType, _EmptyArray)):
        raise _RefusedError(
            f"It names what arrays are made of ({type(value).__name__.strip('_')}), and makes none of it."
        )
    if isinstance(value, (dict, list, tuple)):
        for one in value.values() if isinstance(value, dict) else value:
            _check_made(one)


def _refuse_call(*_: Any) -> Any:
    raise _RefusedError("It calls a type that arrays only name.")


def _dtype(code: Any, *_: Any) -> _DType:
    # Numbers only: an object array would hold whatever objects the pickle makes.
    if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", code):
        raise _RefusedError(f"It has an array of {_shown(code)}, which is no type of numbers.")
    return _DType(code.lstrip("<>|="))


def _array(
    data: Any, dtype: Any, shape: Any, order: Any = "C", axis_order: Any = None
) -> np.ndarray[Any, Any]:
    """The array of these bytes: what NumPy's own functions would make of them, after checking every argument."""
    if not isinstance(dtype, _DType) or not isinstance(data, (bytes, bytearray)):
        raise _RefusedError(f"It has an array made of {type(data).__name__} and {type(dtype).__name__}.")
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(size) is int for size in shape):
        raise _RefusedError("It has an array whose shape is no tuple of a few numbers.")
    # Before the product: that of a few numbers of a million digits takes minutes.
    if any(not 0 <= size <= _LARGEST_SIZE for size in shape):
        raise ValueError("an array of a size that none has")
    if len(data) != math.prod(shape) * dtype.numpy().itemsize:
        raise ValueError(f"an array {shape} of {len(data)} bytes")
    flat = np.frombuffer(data, dtype=dtype.numpy())
    if order == "K":
        # Numbers only: the hash of a tuple goes as deep as tuples are nested in it.
        if (
            not isinstance(axis_order, tuple)
            or len(axis_order) != len(shape)
            or not all(type(axis) is int for axis in axis_order)
            or sorted(axis_order) != list(range(len(shape)))
        ):
            raise ValueError("an array with an impossible order of its axes")
        return flat.reshape(shape).transpose(axis_order)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _empty_array(cls: Any, *_: Any) -> _EmptyArray:
    if cls is not _ADMITTED["numpy", "ndarray"]:
        raise _RefusedError("It has an array that is no plain numpy.ndarray.")
    return _EmptyArray()


def _filled(state: Any) -> np.ndarray[Any, Any]:
    if not isinstance(state, tuple) or len(state) != 5:
        raise _RefusedError("It fills an array with something else than bytes.")
    _, shape, dtype, is_fortran, data = state
    return _array(data, dtype, shape, "F" if is_fortran else "C")


def _scalar(dtype: Any, data: Any) -> np.ndarray[Any, Any]:
    return _array(data, dtype, ())


def _jax_array(fun: Any, args: Any, state: Any, *_: Any) -> np.ndarray[Any, Any]:
    if not isinstance(fun, _Admitted) or fun.build is not _empty_array:
        raise _RefusedError("It has a JAX array that is made in an unknown way.")
    if not isinstance(args, tuple) or len(args) > _MOST_ARGUMENTS:
        raise _RefusedError("It has a JAX array that is made in an unknown way.")
    fun.build(*args)
    return _filled(state)


def _mapping(content: Any = None) -> dict[Any, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise _RefusedError(f"It makes a mapping of {type(content).__name__}.")
    return content


def _bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    # How Python 3 writes bytes in the older protocols.
    if not isinstance(text, str) or encoding != "latin1":
        raise _RefusedError(f"It encodes {type(text).__name__} as {_shown(encoding)}.")
    return text.encode("latin1")


_BUILDERS: dict[Callable[..., Any], list[str]] = {
    _empty_array: ["numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"],
    _scalar: ["numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"],
    _array: ["numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"],
    _dtype: ["numpy.dtype"],
    _refuse_call: ["numpy.ndarray"],
    # Before these, JAX pickled its arrays as NumPy's.
    _jax_array: [
        "jax._src.array._reconstruct_array",
        "jax.experimental.array._reconstruct_array",
        "jax._src.device_array.reconstruct_device_array",
    ],
    _mapping: [
        "collections.OrderedDict",
        "haiku._src.data_structures.FlatMapping",
        "haiku._src.data_structures.FlatMap",
        "haiku._src.data_structures.frozendict",
    ],
    _bytes: ["_codecs.encode", "builtins.bytes", "__builtin__.bytes"],
}
_ADMITTED: dict[tuple[str, str], _Admitted] = {}
for _build, _names in _BUILDERS.items():
    for _name in _names:
        _module, _, _attribute = _name.rpartition(".")
        _ADMITTED[_module, _attribute] = _Admitted(_name, _build)


class _Machine:
    """Carries out the instructions of a pickle: a stack, marks in it, and a memo."""

    def __init__(self, *, most_bytes: int) -> None:
        self.stack: list[Any] = []
        self.below_marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.bytes_left = most_bytes

    def run(self, content: mmap.mmap) -> Any:
        """Returns what the pickle describes."""
        instructions = pickletools.genops(content)  # type: ignore[arg-type]  # reads, as a file does
        for count, (opcode, argument, position) in enumerate(instructions, start=1):
            if count > _MOST_INSTRUCTIONS:
                raise _RefusedError(f"It has more than {_MOST_INSTRUCTIONS:,} instructions.")
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _VALUES:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _INSTRUCTIONS:
                _INSTRUCTIONS[name](self, argument)
            elif name == "PROTO":
                if int(argument or 0) > _NEWEST_PROTOCOL:
                    raise _RefusedError(f"It is of protocol {argument}, expected at most {_NEWEST_PROTOCOL}.")
            elif name == "FRAME":
                if int(argument or 0) > len(content) - (position or 0) - _FRAME_HEADER:
                    raise ValueError("a frame that has no end")
            else:
                raise _RefusedError(f"It has the instruction {name}.")
        raise ValueError("no end")

    def mark(self, _: Any) -> None:
        if len(self.below_marks) >= 2 * MOST_LEVELS:  # at most one of a container, and one of its items
            raise _RefusedError(f"It nests containers in more than {MOST_LEVELS} levels.")
        self.below_marks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below_marks.pop()
        return items

    def drop_mark(self, _: Any) -> None:
        self.pop_mark()

    def put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]
        if isinstance(self.stack[-1], _EmptyArray):
            self.stack[-1].memo_keys.append(key)

    def memoize(self, _: Any) -> None:
        self.put(len(self.memo))

    def get(self, key: int) -> None:
        self.stack.append(self.memo[key])

    def tuple_of(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def marked(self, make: Callable[[list[Any]], Any]) -> None:
        items = self.pop_mark()
        self.stack.append(make(items))

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise _RefusedError(f"It appends to {type(self.stack[-1]).__name__}.")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise _RefusedError(f"It sets items of {type(self.stack[-1]).__name__}.")
        self.stack[-1].update(_pairs(items))

    def name(self, module: Any, attribute: Any) -> None:
        if (module, attribute) not in _ADMITTED:
            raise _RefusedError(f"It asks for {printable(module):.80}.{printable(attribute):.80}.")
        self.stack.append(_ADMITTED[module, attribute])

    def stack_name(self, _: Any) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        if not isinstance(attribute, str) or not isinstance(module, str):
            raise _RefusedError("It asks for a name that is no text.")
        self.name(module, attribute)

    def call(self, _: Any) -> None:
        arguments, admitted = self.stack.pop(), self.stack.pop()
        if not isinstance(admitted, _Admitted) or not isinstance(arguments, tuple):
            raise _RefusedError(f"It calls {type(admitted).__name__}.")
        if len(arguments) > _MOST_ARGUMENTS:  # handing them over copies them, however often
            raise _RefusedError(f"It calls {admitted.name} with {len(arguments):,} arguments.")
        if admitted.build is _bytes and arguments and isinstance(arguments[0], str):
            # One text may be made bytes often.
            self.bytes_left -= len(arguments[0])
            if self.bytes_left < 0:
                raise _RefusedError("It makes more bytes than the file has.")
        self.stack.append(admitted.build(*arguments))

    def set_state(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _EmptyArray):
            self.stack[-1] = _filled(state)
            for key in target.memo_keys:
                self.memo[key] = self.stack[-1]
            target.memo_keys.clear()
        elif isinstance(target, _DType) and isinstance(state, tuple):
            # What else NumPy would take is for structures, and for types of others.
            if (*state[:1], *state[2:]) != (3, None, None, None, -1, -1, 0) or state[1] not in (
                "<",
                ">",
                "|",
                "=",
            ):
                raise _RefusedError("It has an array of structures, or of an unknown type.")
            target.order = state[1]
        else:
            raise _RefusedError(f"It sets the state of {type(target).__name__}.")


def _pairs(items: list[Any]) -> dict[str, Any]:
    keys, values = items[::2], items[1::2]
    if not all(type(key) is str for key in keys):
        raise _RefusedError("It has a mapping whose keys are no text.")
    if any(len(key) > _LONGEST_NAME for key in keys):
        raise _RefusedError(f"It has a name of more than {_LONGEST_NAME:,} characters.")
    return dict(zip(keys, values, strict=True))


# Instructions whose argument is the value.
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": _Machine.drop_mark,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE": lambda machine, _: machine.marked(tuple),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": lambda machine, _: machine.marked(list),
    "DICT": lambda machine, _: machine.marked(_pairs),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "GLOBAL": lambda machine, names: machine.name(*names.split(" ", 1)),
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.set_state,
}
