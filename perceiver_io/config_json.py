"""What a config.json may hold: read and checked as a stranger's file, before anything is built of it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig

from perceiver_io.budget import MOST_JSON_VALUES, MOST_LEVELS, check_nesting
from perceiver_io.quantized_weights import QUANTIZATION, check_quantization

__all__ = [
    "BASE_FIELDS",
    "FORMAT_VERSION",
    "PARTS",
    "check_keys",
    "class_names",
    "given_dtype",
    "is_known",
    "json_object",
    "read_json_object",
]

FORMAT_VERSION = 1

BASE_FIELDS = {field.name for field in dataclasses.fields(PreTrainedConfig)}
# What `PreTrainedConfig` writes besides its fields; none of it matters to a Perceiver.
_BASE_EXTRAS = {
    "model_type",
    "output_attentions",
    "_name_or_path",
    "_attn_implementation",
    "_experts_implementation",
    QUANTIZATION,
}
# Of its fields, those that it does not check itself.
_BASE_TYPES = {
    "transformers_version": str,
    "output_hidden_states": bool,
    "return_dict": bool,
    "chunk_size_feed_forward": int,
    "is_encoder_decoder": bool,
    "problem_type": str,
}
PARTS = {"inputs", "encoder", "outputs"}
_OPTIONAL_PARTS = {"packing", "shared_attention"}
_KNOWN_KEYS = PARTS | _OPTIONAL_PARTS | {"format_version"} | BASE_FIELDS | _BASE_EXTRAS


def read_json_object(path: str | os.PathLike[str], *, is_own: bool = False) -> dict[str, Any]:
    """Reads a file that must hold one JSON object, strictly, as `json_object` does.

    Args:
        path: The file.
        is_own: Whether it is of a run that is resumed: then it may have any number of values, and NaN.

    Raises:
        json.JSONDecodeError: It is no JSON.
        UnicodeDecodeError: It is no text.
        ValueError: It holds something else; or one of the two before, which are ValueErrors too.
        OSError: It cannot be opened.
    """
    with open(path, encoding="utf-8") as file:
        text = file.read()
    most_values = None if is_own else MOST_JSON_VALUES
    return json_object(text, name=os.fspath(path), may_hold_nan=is_own, most_values=most_values)


def json_object(
    text: str, *, name: str, may_hold_nan: bool = False, most_values: int | None = MOST_JSON_VALUES
) -> dict[str, Any]:
    """Returns the one JSON object that a text must hold: no key twice, no NaN, a limit on depth and length.

    Args:
        text: The text.
        name: What it is, for messages.
        may_hold_nan: Whether numbers may be NaN and infinite, as `json.dump` writes them.
        most_values: How many there may be; any number if None.

    Raises:
        json.JSONDecodeError: It is no JSON.
        ValueError: It holds something else, as above.
    """
    if most_values is not None and sum(map(text.count, "[{,")) > most_values:
        raise ValueError(f"{name} describes more than {most_values:,} values.")
    try:
        values = json.loads(
            text, object_pairs_hook=_unique, parse_constant=None if may_hold_nan else _no_number
        )
        check_nesting(values)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply, expected at most {MOST_LEVELS} levels.") from None
    except ValueError as error:
        raise ValueError(f"{name} is not the JSON that was expected: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{name} must hold a JSON object, got {type(values).__name__}.")
    return values


def check_keys(values: Mapping[str, Any], *, model_type: str) -> None:
    """Checks all of a configuration but its parts.

    Args:
        values: What config.json holds.
        model_type: What it must be the configuration of.

    Raises:
        ValueError: It is none of ours, a key is unknown, or a value is of a wrong type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"A configuration (config.json) must be an object, got {type(values).__name__}.")
    check_nesting(values)
    if values.get("model_type", model_type) != model_type:
        raise ValueError(
            f"This is the configuration of a {values['model_type']!r:.80} model, expected {model_type!r}. A published "
            "Perceiver of transformers is loaded by perceiver_io.from_pretrained."
        )
    version = values.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"This configuration has the format version {version!r:.80}; this version of perceiver_io reads 1 to "
            f"{FORMAT_VERSION}. Upgrade with: pip install --upgrade perceiver-io-toolkit"
        )
    if unknown := sorted(set(values) - _KNOWN_KEYS):
        raise ValueError(
            f"The configuration has the unknown keys {unknown!a:.200}. Known keys: "
            f"{sorted(PARTS | _OPTIONAL_PARTS)}, 'format_version' and the fields of transformers.PreTrainedConfig."
        )
    _check_base_fields(values)
    for part in sorted(PARTS):
        if not isinstance(values.get(part), Mapping):
            raise ValueError(
                f"The configuration needs an object under {part!r}, got {values.get(part)!r:.200}."
            )


def is_known(name: str) -> bool:
    """Returns whether a configuration may have this key."""
    return name in _KNOWN_KEYS


def class_names(id2label: Any) -> dict[int, str]:
    """Returns the names of classes by their index.

    Args:
        id2label: The same, maybe with indices as JSON has them: "0".

    Raises:
        ValueError: It is something else, or the indices are not 0, 1, and so on.
    """
    names: dict[int, str] = {}
    if isinstance(id2label, Mapping):
        names = {
            int(index): str(label)
            for index, label in id2label.items()
            if len(str(index)) < 10 and str(index).isdecimal()
        }
    if not names or len(names) != len(id2label) or max(names) != len(names) - 1:
        raise ValueError(
            f"id2label must name classes by their index, 0, 1, and so on, got {id2label!r:.200}."
        )
    return dict(sorted(names.items()))


def given_dtype(dtype: Any) -> torch.dtype | None:
    """Returns the type of a model's weights that is given by name, or as what it is.

    Raises:
        ValueError: There is none of this name, or models cannot have it.
    """
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found is None and dtype is None:
        return None
    if not isinstance(found, torch.dtype) or not found.is_floating_point or found.itemsize < 2:
        raise ValueError(
            f"dtype must name a type of weights, such as 'float32' or 'bfloat16', got {dtype!r:.80}."
        )
    return found


def _check_base_fields(values: Mapping[str, Any]) -> None:
    given_dtype(values.get("dtype"))
    if values.get(QUANTIZATION) is not None:
        check_quantization(values[QUANTIZATION])
    if values.get("id2label") is not None:
        class_names(values["id2label"])
    architectures = values.get("architectures")
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    ):
        raise ValueError(f"architectures must be a list of class names, got {architectures!r:.200}.")
    indices = values.get("label2id")
    if indices is not None and not (
        isinstance(indices, Mapping) and all(type(index) is int for index in indices.values())
    ):
        raise ValueError(f"label2id must give the index of each class by its name, got {indices!r:.200}.")
    for name, expected in _BASE_TYPES.items():
        if values.get(name) is not None and type(values[name]) is not expected:
            raise ValueError(f"{name} must be {expected.__name__}, got {values[name]!r:.200}.")


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"the key {name!r:.80} is there twice.")
        values[name] = value
    return values


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON.")
