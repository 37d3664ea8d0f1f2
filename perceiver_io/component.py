"""Components of a model and their configurations.

A component (an input adapter, a decoder) is a module with one frozen, keyword-only `Config` dataclass beside
it. The configuration holds plain values only, so that it can be written as JSON and read back unchanged.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

__all__ = ["ComponentConfig"]

_LARGEST_INT = 2**63 - 1

ConfigT = TypeVar("ConfigT", bound="ComponentConfig")


@dataclass(frozen=True, kw_only=True)
class ComponentConfig:
    """Base of all component configurations.

    Fields may be bool, int, float, str, None, literals, tuples of these, and unions of them. Every field is
    checked against its annotation when a configuration is made; lists (as JSON has them) become tuples. Floats are
    finite, and ints have 64 bits, as sizes of tensors do.
    Subclasses that check more call ``super().__post_init__()`` first.

    Raises:
        ValueError: A field holds a value that its annotation does not allow.
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            where = f"{type(self).__qualname__}.{field.name}"
            object.__setattr__(
                self, field.name, _checked(getattr(self, field.name), hints[field.name], where)
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON values (tuples as lists)."""
        return {field.name: _as_json(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
        """Builds a configuration from JSON values, strictly.

        Args:
            values: What `to_dict` returned; missing fields take their defaults.

        Raises:
            ValueError: A key is unknown, a field without a default is missing, or a value is of a wrong type.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - set(fields)):
            raise ValueError(
                f"{cls.__qualname__} got the unknown keys {unknown!a:.200}. Known keys: {sorted(fields)}. "
                "Remove or rename them, or install the version of the package that wrote this configuration."
            )
        required = {
            name
            for name, field in fields.items()
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
        if missing := sorted(required - set(values)):
            raise ValueError(f"{cls.__qualname__} needs the keys {missing}; got only {sorted(values)}.")
        return cls(**values)


def _as_json(value: Any) -> Any:
    return [_as_json(item) for item in value] if isinstance(value, tuple) else value


def _checked(value: Any, hint: Any, where: str) -> Any:
    """Returns the value as its annotation wants it (a list as a tuple, an int as a float where floats go)."""
    matched, result = _match(value, hint)
    if not matched:
        too_large = ", which 64 bits cannot hold" if type(value) is int and abs(value) > _LARGEST_INT else ""
        raise ValueError(f"{where} must be {_hint_name(hint)}, got {value!r:.200}{too_large}.")
    return result


def _match(value: Any, hint: Any) -> tuple[bool, Any]:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return any(type(option) is type(value) and option == value for option in typing.get_args(hint)), value
    if origin in (typing.Union, types.UnionType):
        for option in typing.get_args(hint):
            matched, result = _match(value, option)
            if matched:
                return True, result
        return False, value
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False, value
        item_hints = typing.get_args(hint)
        if len(item_hints) == 2 and item_hints[1] is Ellipsis:
            item_hints = (item_hints[0],) * len(value)
        if len(item_hints) != len(value):
            return False, value
        items = [_match(item, item_hint) for item, item_hint in zip(value, item_hints, strict=True)]
        return all(matched for matched, _ in items), tuple(item for _, item in items)
    if hint is types.NoneType:
        return value is None, value
    if isinstance(value, bool):
        return hint is bool, value
    if hint is float and isinstance(value, (int, float)):
        fits = abs(value) <= sys.float_info.max  # neither infinite nor NaN
        return fits, float(value) if fits else value
    if hint is int and isinstance(value, int):
        return -_LARGEST_INT <= value <= _LARGEST_INT, value
    return isinstance(value, hint), value


def _hint_name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(option) for option in typing.get_args(hint))
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
