"""Component configurations: typed, frozen, JSON there and back."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io import ComponentConfig


@dataclass(frozen=True, kw_only=True)
class Example(ComponentConfig):
    count: int
    scale: float = 1.0
    flag: bool = False
    name: str = "a"
    mode: Literal["concat", "add"] = "concat"
    size: tuple[int, int] = (1, 2)
    sizes: tuple[int, ...] = ()
    nested: tuple[tuple[int, str], ...] = ()
    maybe: int | None = None


INTS = st.integers(-(2**63) + 1, 2**63 - 1)


@given(
    st.builds(
        Example,
        count=INTS,
        scale=st.floats(allow_nan=False, allow_infinity=False),
        flag=st.booleans(),
        name=st.text('aé"\n'),
        mode=st.sampled_from(["concat", "add"]),
        size=st.tuples(INTS, INTS),
        sizes=st.lists(INTS).map(tuple),
        nested=st.lists(st.tuples(INTS, st.text('aé"\n'))).map(tuple),
        maybe=st.none() | INTS,
    )
)
def test_survives_json(config: Example) -> None:
    assert Example.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_lists_become_tuples_and_ints_become_floats() -> None:
    config = Example.from_dict({"count": 1, "scale": 2, "size": [3, 4], "nested": [[5, "b"]]})
    assert config == Example(count=1, scale=2.0, size=(3, 4), nested=((5, "b"),))
    assert type(config.scale) is float
    assert hash(config) == hash(Example(count=1, scale=2.0, size=(3, 4), nested=((5, "b"),)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", 1.5),
        ("count", True),
        ("count", 2**63),
        ("count", -(10**400)),
        ("size", (1, 2**63)),
        ("maybe", 2**63),
        ("count", None),
        ("count", "1"),
        ("scale", "1.0"),
        ("scale", float("nan")),
        ("scale", float("-inf")),
        ("scale", 10**400),
        ("scale", True),
        ("flag", 1),
        ("name", 1),
        ("name", ["a"]),
        ("mode", ["concat"]),
        ("mode", "multiply"),
        ("size", (1,)),
        ("size", (1, 2, 3)),
        ("size", (1, 2.5)),
        ("size", 1),
        ("sizes", ("a",)),
        ("nested", ((1, 2),)),
        ("maybe", "x"),
    ],
)
def test_wrong_types_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"Example\.{field} must be .*, got"):
        Example(**{"count": 1, field: value})


def test_wrong_literal_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"mode must be one of 'concat', 'add', got 'multiply'"):
        Example(count=1, mode="multiply")  # type: ignore[arg-type]


def test_unknown_keys_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown keys \['colour'\].*'count', 'flag', 'maybe'"):
        Example.from_dict({"count": 1, "colour": 2})


def test_missing_keys_are_named() -> None:
    with pytest.raises(ValueError, match=r"needs the keys \['count'\]; got only \['scale'\]"):
        Example.from_dict({"scale": 1.0})


def test_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Example(count=1).count = 2  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        Example(1)  # type: ignore[misc]
