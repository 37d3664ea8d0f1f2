"""The files of a model's weights: which they are, what lies in them, and whether it fits, before memory is taken.

Nothing in them runs, and an index names files beside it only.
"""

from __future__ import annotations

import itertools
import os
import pickle
import re
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from perceiver_io.config_json import given_dtype, read_json_object
from perceiver_io.pickle_scan import check_pickle
from perceiver_io.printable import printable

__all__ = [
    "HUB_OPTIONS",
    "PICKLE",
    "SAFETENSORS",
    "check_finite",
    "check_fit",
    "description",
    "find_weights",
    "first_lines",
    "read_tensors",
    "tensor_shapes",
]

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
"""Where to find the files of a hub id, and how to fetch them."""
SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
_MOST_LINES = 10
_OLD_PICKLES = 5  # one after the other in files of PyTorch until 2020, before the numbers themselves
# The ends of an archive (zip): the last one, and what stands before it for 64 bits.
_END = struct.Struct("<4s8x2IH")
_LOCATOR = struct.Struct("<4s4xQ4x")
_END_64 = struct.Struct("<4s36x2Q")
_MOST_SHARED = 4  # how often numbers may be there, under several names


def find_weights(
    source: str | os.PathLike[str],
    names: tuple[str, ...],
    hub_options: Mapping[str, Any],
    *,
    variant: str | None = None,
) -> list[str]:
    """Returns the files of a model's weights: one, or all that an index names.

    Args:
        source: A folder, a hub id, or one file of weights.
        names: What the file may be called, `SAFETENSORS` or `PICKLE`; the first that is there counts.
        hub_options: Those of `HUB_OPTIONS` that are given.
        variant: As `transformers.PreTrainedModel.from_pretrained`: "fp16" for model.fp16.safetensors.

    Raises:
        ValueError: An index is no index, or names what is no file beside it.
        OSError: There is no such source, it has no weights, or a file that the index names is missing.
    """
    if Path(source).is_file():
        return [str(source)]

    def find(name: str, *, required: bool = False) -> str | None:
        return cached_file(source, name, _raise_exceptions_for_missing_entries=required, **hub_options)

    for name in names:
        stem, suffix = name.rsplit(".", 1)
        of_variant = "" if variant is None else f".{variant}"
        if (path := find(f"{stem}{of_variant}.{suffix}")) is not None:
            return [path]
        if (index := find(f"{name}.index{of_variant}.json")) is not None:
            found = [find(shard, required=True) for shard in _shards(index, suffix=f".{suffix}")]
            return [path for path in found if path is not None]
    raise OSError(
        f"{source} has no weights: expected {' or '.join(names)}, or an index of several such files."
    )


def tensor_shapes(path: str) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each tensor in a file, without reading it whole.

    Raises:
        ValueError: The file cannot be read, or holds something else.
        OSError: There is no such file.
    """
    if not path.endswith(".safetensors"):
        return {name: tuple(tensor.shape) for name, tensor in _read_pickle(path, device="meta").items()}
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except SafetensorError as error:
        raise _unreadable(path, error) from error


def description(path: str) -> dict[str, str]:
    """Returns what a file of weights says besides its tensors.

    Raises:
        ValueError: The file cannot be read.
        OSError: There is no such file.
    """
    if not path.endswith(".safetensors"):
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise _unreadable(path, error) from error


def read_tensors(path: str) -> dict[str, Tensor]:
    """Returns the tensors in a file, which may be written anew afterwards. Pickles are read with ``weights_only=True``.

    Raises:
        ValueError: The file cannot be read, or holds something else.
        OSError: There is no such file.
    """
    if not path.endswith(".safetensors"):
        return _read_pickle(path, device="cpu")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
        tensors = {}
        for name in names:
            # Copies: the file may be written anew while the model lives. Opened for each tensor: what was read of a
            # file that is mapped into memory stays there until it is closed; the weights would be held twice.
            with safe_open(path, framework="pt") as file:
                tensors[name] = file.get_tensor(name).clone()
        return tensors
    except SafetensorError as error:
        raise _unreadable(path, error) from error


def check_fit(
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    *,
    source: str | os.PathLike[str] | None,
    model_name: str,
    may_mismatch: bool = False,
    prefix: str = "",
) -> None:
    """Checks that weights are those of a model, all of them and no others.

    Args:
        found: Shape of each tensor that is there.
        expected: Shape of each tensor that the model has.
        source: Where the weights are, for the message.
        model_name: The model's class, for the message.
        may_mismatch: Whether tensors may have other shapes.
        prefix: What names may begin with or not: that of a model within a task's model.

    Raises:
        ValueError: They are not; some of those that are missing, not expected or of a wrong shape are named.
    """
    have = {name.removeprefix(prefix): name for name in found}
    want = {name.removeprefix(prefix): name for name in expected}
    missing = [f"missing tensor: {_shown(want[name])}" for name in sorted(want.keys() - have.keys())]
    unexpected = [f"unexpected tensor: {_shown(have[name])}" for name in sorted(have.keys() - want.keys())]
    mismatched = [
        f"wrong shape: {_shown(want[name])} is {found[have[name]]}, expected {expected[want[name]]}"
        for name in sorted(want.keys() & have.keys())
        if found[have[name]] != expected[want[name]] and not may_mismatch
    ]
    if missing or unexpected or mismatched:
        advice = ""
        if not missing and not unexpected:
            advice = "\nWith ignore_mismatched_sizes=True these tensors start anew, to be trained."
        raise ValueError(
            f"The weights in {source} do not fit {model_name} as its configuration describes it:\n  "
            + "\n  ".join(first_lines(missing, unexpected, mismatched))
            + advice
        )


def check_finite(
    tensors: Mapping[str, Tensor], *, source: str | os.PathLike[str] | None, model_name: str
) -> None:
    """Checks that weights are numbers, in one pass over them.

    One NaN among them can change what a model says without a trace: some kernels of attention make zeros of it.

    Args:
        tensors: The model's tensors by name. Those without memory and those of a type of their own (sharded ones) are
            not looked at, nor are whole numbers; quantised ones are, as the numbers that they stand for.
        source: Where they were read, for the message.
        model_name: The model's class, for the message.

    Raises:
        ValueError: Some hold NaN or infinities; it names them.
    """
    damaged = [f"{_shown(name)}" for name, tensor in tensors.items() if not _is_finite(tensor)]
    if damaged:
        raise ValueError(
            f"The weights in {source} are damaged: {len(damaged):,} of the {len(tensors):,} tensors of {model_name} "
            "hold NaN or infinities. Fetch them again, or train again with a lower learning rate.\n  "
            + "\n  ".join(first_lines(damaged))
        )


def first_lines(*kinds: Sequence[str]) -> list[str]:
    """Returns as many lines as people read, some of each kind, and how many more there are."""
    lines = list(itertools.chain(*kinds))
    if len(lines) <= _MOST_LINES:
        return lines
    in_turn = [line for turn in itertools.zip_longest(*kinds) for line in turn if line is not None]
    shown = set(in_turn[:_MOST_LINES])
    return [*filter(shown.__contains__, lines), f"and {len(lines) - _MOST_LINES:,} more"]


def _is_finite(tensor: Tensor) -> bool:
    values = tensor.detach()
    if hasattr(type(values), "tensor_data_names"):  # integers with their scales, as torchao has them
        values = values.dequantize()
    if type(values) is not Tensor and type(values) is not nn.Parameter:
        return True
    if (
        values.is_meta
        or not values.is_floating_point()
        or values.layout != torch.strided
        or not values.numel()
    ):
        return True
    if values.itemsize < 2:
        values = values.float()
    least, most = values.aminmax()  # NaN if one is; no memory, unlike isfinite
    return bool(torch.isfinite(least) & torch.isfinite(most))


def _shown(name: str) -> str:
    """A name of a tensor on one line, without what could steer a terminal."""
    return f"{printable(name):.200}"


def _shards(index: str, *, suffix: str) -> list[str]:
    try:
        content = read_json_object(index)
        names = sorted(set(content["weight_map"].values()))
        given_dtype(content["metadata"].get("dtype"))  # `transformers` relies on it
        if not all(
            isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) and name.endswith(suffix)
            for name in names
        ):
            raise ValueError(f"its weight_map must name {suffix} files beside it")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"The index of the weights {index} cannot be read: {error!r:.200}.") from error
    return names


def _read_pickle(path: str, *, device: str) -> dict[str, Tensor]:
    size = os.path.getsize(path)
    try:
        _check_program(path, size)
        content = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it asks for something that tensors do not need, or is damaged. Nothing in it has been "
            f"run. ({printable(str(error).splitlines()[0]):.200})"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged program leads to
        raise ValueError(
            f"{path} cannot be read ({error!r:.200}): the file is truncated or was not written by torch.save. Fetch it "
            "again."
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} must hold tensors by name, got {type(content).__name__} of other things.")
    content = dict(content)
    _check_plain(content, path=path, size=size, device=device)
    return content


def _check_program(path: str, size: int) -> None:
    """Checks what a file of `torch.save` asks for, before PyTorch carries it out."""
    with open(path, "rb") as file:
        is_archive = file.read(4) == b"PK\3\4"  # as PyTorch tells them apart
        file.seek(0)
        if not is_archive:
            if tarfile.is_tarfile(path):
                raise ValueError("it is an archive as PyTorch wrote it in 2016")
            for _ in range(_OLD_PICKLES):
                check_pickle(file)
            return
        _check_directory(file, size)
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        _check_not_compressed(parts, size)
        for part in parts:
            if part.filename.lower().endswith(".pkl"):
                with archive.open(part) as program:
                    check_pickle(cast(BinaryIO, program))


def _check_directory(file: BinaryIO, size: int) -> None:
    """Checks that the directory of an archive ends where its end begins, and that nothing follows.

    Python and PyTorch look for a directory in different ways, so a file could show each another one: one is checked,
    and the other used.
    """

    def read(structure: struct.Struct, position: int) -> tuple[Any, ...]:
        file.seek(position)
        return structure.unpack(file.read(structure.size))

    position = size - _END.size
    mark, length, start, comment = read(_END, position)
    is_plain = mark == b"PK\5\6" and comment == 0
    before = position - _LOCATOR.size - _END_64.size
    if before >= 0 and (locator := read(_LOCATOR, before + _END_64.size))[0] == b"PK\6\7":
        mark, length, start = read(_END_64, before)
        is_plain = is_plain and mark == b"PK\6\6" and locator[1] == before
        position = before
    if not is_plain or start + length != position:
        raise ValueError("its directory is not where torch.save puts it")


def _check_not_compressed(parts: Sequence[zipfile.ZipInfo], size: int) -> None:
    """`torch.save` compresses nothing, and what is compressed can be a thousand times larger than the file."""
    if (
        any(part.compress_type != zipfile.ZIP_STORED for part in parts)
        or sum(part.file_size for part in parts) > size
    ):
        raise ValueError("its parts are compressed, or more than the file has room for")


def _check_plain(tensors: Mapping[str, Tensor], *, path: str, size: int, device: str) -> None:
    """Refuses tensors that are more than what the file holds of them, and those that are no arrays of numbers."""
    total = 0
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise ValueError(f"{path} must hold tensors by name, got a name that is {type(name).__name__}.")
        is_plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_nested
        if not is_plain or (tensor.is_meta and device != "meta"):
            raise ValueError(
                f"{path} holds {_shown(name)} as a {tensor.layout} tensor of {tensor.dtype} on {tensor.device}, "
                "expected plain numbers. Save it as what to_dense() or dequantize() give."
            )
        total += tensor.numel() * tensor.itemsize
    if total > _MOST_SHARED * size:
        raise ValueError(
            f"{path} has {size:,} bytes, and describes tensors of {total:,}: they repeat what they hold. Save them "
            "with contiguous()."
        )


def _unreadable(path: str, error: Exception) -> ValueError:
    return ValueError(
        f"{path} cannot be read ({printable(str(error)):.300}): the file is truncated or is no safetensors file. Fetch "
        "or save it again."
    )
