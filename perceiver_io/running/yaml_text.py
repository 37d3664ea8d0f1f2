"""YAML as a stranger's text: plain values, within a budget."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from perceiver_io.budget import MOST_LEVELS, MOST_VALUES, check_nesting

__all__ = ["LONGEST_YAML", "read_yaml"]

LONGEST_YAML = 200_000
"""Characters of a recipe; those that come with this package have fewer than 3,000."""

_LONGEST_NUMBER = 400
_COUNTS_ONCE = 100  # a text counts as a value more for so many characters


def read_yaml(text: str) -> Any:
    """Returns the plain values that a text in YAML describes.

    Args:
        text: The text.

    Raises:
        ValueError: It is no YAML, or describes too much: values that have a name can be used again and again, so that a
            few lines describe more than any memory holds.
    """
    if len(text) > LONGEST_YAML:
        raise ValueError(f"it has more than {LONGEST_YAML:,} characters")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:  # such as of "!!bool maybe"
        raise ValueError(f"it has a value that is none ({error!r:.80})") from error


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with a look at the nodes before values are made of them."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._level += 1
        if self._level > MOST_LEVELS:
            raise ValueError(f"it is nested too deeply, expected at most {MOST_LEVELS} levels")
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def get_single_node(self) -> Any:
        # Here, because merging one mapping into another (`<<`) copies what it holds when values are made.
        node = super().get_single_node()
        if node is not None:
            check_nesting(node, most_values=MOST_VALUES, items=_items)
        return node

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and len(value) > _LONGEST_NUMBER:
            raise ValueError(f"it has a number of more than {_LONGEST_NUMBER} characters")
        return value


def _items(node: Any) -> Iterable[Any]:
    if isinstance(node, yaml.MappingNode):
        return [item for pair in node.value for item in pair]
    if isinstance(node, yaml.ScalarNode):
        return range(len(node.value) // _COUNTS_ONCE)
    return node.value if isinstance(node, yaml.SequenceNode) else ()
