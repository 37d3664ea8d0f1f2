"""Weights that files hold as integers and their scales, as torchao writes them: what such files may say.

torchao would call whatever its modules have by a name in config.json. So only the settings of int8 are known here, and
all else is refused before it is asked.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["QUANTIZATION", "check_quantization", "joined_shapes"]

QUANTIZATION = "quantization_config"
"""The key of config.json under which transformers writes how the weights were quantised."""

_KINDS = ("Int8DynamicActivationInt8WeightConfig", "Int8WeightOnlyConfig")
_TYPES = {*_KINDS, "MappingType", "PerRow", "PerTensor"}
_FIELDS = {
    "quant_method",
    "quant_type",
    "modules_to_not_convert",
    "include_input_output_embeddings",
    "untie_embedding_weights",
}
_PARTS = {"qdata", "scale", "zero_point", "act_pre_scale"}


def check_quantization(values: Any) -> None:
    """Checks what a config.json says of quantised weights.

    Args:
        values: The value of `QUANTIZATION`.

    Raises:
        ValueError: It is not torchao's int8.
    """
    if not isinstance(values, Mapping) or values.get("quant_method") != "torchao" or set(values) - _FIELDS:
        raise _refused(values)
    kind, kept = values.get("quant_type"), values.get("modules_to_not_convert")
    if not isinstance(kind, Mapping) or set(kind) != {"default"} or not isinstance(kind["default"], Mapping):
        raise _refused(values)
    if kind["default"].get("_type") not in _KINDS or not _is_plain(kind["default"]):
        raise _refused(values)
    # They are read as patterns, and some patterns take for ever.
    names = [] if kept is None else kept
    if not isinstance(names, list) or not all(
        isinstance(name, str) and re.fullmatch(r"[\w.]+", name) for name in names
    ):
        raise _refused(values)
    for name in ("include_input_output_embeddings", "untie_embedding_weights"):
        if values.get(name, False) is not False:
            raise _refused(values)


def joined_shapes(
    shapes: Mapping[str, tuple[int, ...]], descriptions: Iterable[Mapping[str, str]]
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the weights that the tensors in files are parts of.

    Parts that do not make up a whole stay by themselves, so that whoever compares names finds them.

    Args:
        shapes: Shape of each tensor, by name.
        descriptions: What each file says of its tensors besides.
    """
    joined = dict(shapes)
    for name, parts in _parts(descriptions).items():
        module, _, weight = name.rpartition(".")
        whole = {part: f"{module}._{weight}_{part}" for part in parts}
        if "qdata" not in whole or not set(whole.values()) <= shapes.keys():
            continue
        shape = shapes[whole["qdata"]]
        if all(math.prod(shapes[whole[part]]) in (1, shape[0]) for part in parts if part != "qdata"):
            joined = {key: value for key, value in joined.items() if key not in whole.values()}
            joined[name] = shape
    return joined


def _parts(descriptions: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """The parts of each quantised weight, by its name."""
    found: dict[str, list[str]] = {}
    for described in descriptions:
        for name, text in described.items():
            try:
                values = json.loads(text)
            except (RecursionError, ValueError):
                continue
            parts = values.get("_tensor_data_names") if isinstance(values, dict) else None
            if isinstance(parts, list) and all(isinstance(part, str) and part in _PARTS for part in parts):
                found[name] = parts
    return found


def _is_plain(values: Any) -> bool:
    """Whether these settings name only types that are known, and hold plain values."""
    if not isinstance(values, Mapping):
        return values is None or isinstance(values, (bool, int, float, str))
    kind, data = values.get("_type"), values.get("_data")
    if not isinstance(kind, str) or kind not in _TYPES or set(values) - {"_type", "_data", "_version"}:
        return False
    if kind == "MappingType":
        return isinstance(data, str) and data.isupper() and data.isidentifier()
    return isinstance(data, Mapping) and all(_is_plain(value) for value in data.values())


def _refused(values: Any) -> ValueError:
    return ValueError(
        f"{QUANTIZATION} must say that torchao quantised weights to int8 ({' or '.join(_KINDS)}), got {values!r:.300}. "
        "Other kinds are not read from files: load the model as it was before, and quantise it."
    )
