"""Parameter files of the original release, changed: what is read is what Python's own reader makes of them."""

from __future__ import annotations

import collections
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import event, example, given
from hypothesis import strategies as st

from fuzz.changes import changed_bytes
from fuzz.trials import Refused, cases, tried
from perceiver_io.published import from_deepmind
from perceiver_io.published.unpickler import read_pickle
from tests.causal.goldens import DEEPMIND, deepmind_config, jax_value

NAMES = {
    *(("collections", "OrderedDict"), ("numpy", "dtype"), ("numpy", "ndarray"), ("_codecs", "encode")),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


class Reader(pickle.Unpickler):
    """Python's own, which admits no more than arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NAMES:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


PARAMS = {
    "encoder/~/linear": {"w": np.arange(6, dtype="float32").reshape(2, 3), "b": np.zeros(3, "float32")},
    "encoder/~/norm": collections.OrderedDict(
        scale=np.ones(40, ">f4"), offset=np.asfortranarray(np.eye(3, 4))
    ),
    "other": {"step": np.float32(2.5), "counter": np.array(3), "half": np.arange(99, dtype="float16")[::2]},
}
CONTENT = {
    "params": PARAMS,
    "state": {},
    "global_step": 2**70,
    "opt_state": None,
    "more": [1.5, (True, "text", b"bytes")],
}
FILES = [pickle.dumps(CONTENT, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
WORDS = [
    *(
        b"\x85",
        b"\x86",
        b"\x87",
        b"q\x00",
        b"h\x00",
        b"\x94",
        b")",
        b"}",
        b"]",
        b"(",
        b"t",
        b"l",
        b"d",
        b"R",
        b"b",
        b"2",
        b"0",
    ),
    *(
        b"N",
        b"s",
        b"u",
        b"a",
        b"e",
        b"K\x01",
        b"J\xff\xff\xff\x7f",
        b"\x8a\x08" + b"\x7f" * 8,
        b"I99999999999\n",
        b"L5L\n",
        b".",
    ),
    *(
        b"cnumpy\ndtype\n",
        b"cos\nsystem\n",
        b"c_codecs\nencode\n",
        b"\x8c\x01a\x93",
        b"Vtext\n",
        b"U\x03abc",
        b"F1e999\n",
    ),
    *(
        b"cnumpy.core.numeric\n_frombuffer\n",
        b"cbuiltins\nbytes\n",
        b"\x81",
        b"\x92",
        b"P1\n",
        b"\x82\x01",
        b"\x8f",
        b"\x90",
    ),
]


def arrays(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, (dict, list, tuple)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from arrays(one)
    elif isinstance(value, np.ndarray):
        yield value


def check_file(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    found = tried(read_pickle, path)
    if isinstance(found, Refused):
        return
    assert sum(array.nbytes for array in arrays(found)) <= 100 * len(content)
    try:
        expected = Reader(io.BytesIO(content)).load()
    except Exception:  # of a protocol that it does not know, of what only numpy has no use for, and so on
        event("Python's refuses")
        return
    np.testing.assert_equal(found, expected)


@cases(few=120)
@given(content=st.sampled_from(FILES).flatmap(lambda file: changed_bytes(file, pieces=WORDS)))
@example(content=FILES[0])
@example(content=FILES[4])
def test_changed_bytes(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_file(content, tmp_path_factory.getbasetemp() / "changed.pickle")


@cases(few=120)
@given(
    words=st.lists(st.sampled_from(WORDS) | st.binary(min_size=1, max_size=2), max_size=20),
    start=st.sampled_from([b"", b"\x80\x02", b"\x80\x04"]),
)
def test_programs_of_words(
    words: list[bytes], start: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check_file(start + b"".join(words) + b".", tmp_path_factory.getbasetemp() / "words.pickle")


NAME = next(iter(DEEPMIND["models"]))
TREE = {
    module: {leaf: jax_value(module, leaf, shape) for leaf, shape in leaves.items()}
    for module, leaves in DEEPMIND["models"][NAME]["params"].items()
}
CHANGES: dict[str, Callable[[np.ndarray], Any]] = {
    **{dtype: lambda array, dtype=dtype: array.astype(dtype) for dtype in ("f2", "f8", ">f4")},  # type: ignore[misc]
    "fortran": np.asfortranarray,
    "reversed": lambda array: array[::-1],
    "int": lambda array: array.astype("i4"),
    "complex": lambda array: array.astype("c8"),
    "flat": np.ravel,
    "empty": lambda array: array[:0],
    "higher": lambda array: array[None],
    "nan": lambda array: np.full_like(array, np.nan),
    "large": lambda array: np.full(array.shape, 1e300),
    "list": np.ndarray.tolist,
    "nothing": lambda array: None,
    "number": lambda array: 1.5,
    "mapping": lambda array: {"w": array},
}
KEPT = ("f2", "f8", ">f4", "fortran", "reversed")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], dict[str, Any]]:
    """What a tree of plain arrays is loaded as."""
    path = tmp_path_factory.mktemp("plain") / "plain.pickle"

    def load(tree: Any) -> dict[str, Any]:
        plain = {
            module: {leaf: np.ascontiguousarray(array, "float32") for leaf, array in leaves.items()}
            for module, leaves in tree.items()
        }
        path.write_bytes(pickle.dumps({"params": plain}))
        return from_deepmind(path, deepmind_config(NAME)).state_dict()

    return load


@cases(few=10)
@given(
    place=st.sampled_from([(module, leaf) for module, leaves in TREE.items() for leaf in leaves]),
    change=st.sampled_from([*CHANGES, *KEPT, "drop", "add", "rename"]),
    protocol=st.integers(0, pickle.HIGHEST_PROTOCOL),
    whole=st.booleans(),
)
def test_trees_of_arrays(
    place: tuple[str, str],
    change: str,
    protocol: int,
    whole: bool,
    expected: Callable[[Any], dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tree = {module: dict(leaves) for module, leaves in TREE.items()}
    module, leaf = place
    if change in CHANGES:
        tree[module][leaf] = CHANGES[change](tree[module][leaf])
    elif change == "drop":
        del tree[module][leaf]
    elif change == "add":
        tree[module]["\x1b[2J"] = np.zeros(1, "float32")
    else:
        tree[module]["other"] = tree[module].pop(leaf)
    path = tmp_path_factory.getbasetemp() / "tree.pickle"
    path.write_bytes(
        pickle.dumps({"params": tree, "state": {}, "global_step": 3} if whole else tree, protocol)
    )
    model = tried(from_deepmind, path, deepmind_config(NAME))
    if change in KEPT:
        assert not isinstance(model, Refused), model.error
    if isinstance(model, Refused):
        return
    plain = expected(tree)
    assert all(torch.equal(tensor, plain[name]) for name, tensor in model.state_dict().items())
