"""Recipes from YAML files and from flags."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

from transformers import HfArgumentParser

from perceiver_io.plugins import PROVIDED_BY
from perceiver_io.printable import printable
from perceiver_io.running.recipe import TrainingRecipe, section_names
from perceiver_io.running.yaml_text import LONGEST_YAML, read_yaml

__all__ = ["merged", "parse_recipe", "read_recipe_file", "recipe_parser", "task_of_recipe"]

RecipeT = TypeVar("RecipeT", bound=TrainingRecipe)

# What YAML 1.1 takes for text: a number with an exponent, but without a point or a sign.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def read_recipe_file(path: str | Path, *, task: str | None = None) -> dict[str, Any]:
    """Reads the settings of a recipe file, unchecked.

    Args:
        path: YAML file with one setting a line; sections are nested.
        task: Task that the file must be for, if it names one.

    Returns:
        The settings by name, without what brought the task, and without the task where `task` is given.

    Raises:
        ValueError: The file cannot be read, is no mapping in YAML, or is for another task.
    """
    content = _content(path)
    content.pop(PROVIDED_BY, None)
    if task is not None and content.pop("task", task) != task:
        raise ValueError(f"The recipe {path} is for another task than {task!r}: its first line says which.")
    return content


def task_of_recipe(path: str | Path) -> tuple[Any, Any]:
    """Returns what a recipe file says of its task, unchecked: the name, and which plug-in brought it.

    Args:
        path: The file.

    Returns:
        Both; None for what it does not say.

    Raises:
        ValueError: The file cannot be read, or is no mapping in YAML.
    """
    content = _content(path)
    return content.get("task"), content.get(PROVIDED_BY)


def _content(path: str | Path) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(LONGEST_YAML + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The recipe {path} cannot be read: {error}.") from error
    try:
        content = read_yaml(text)
    except ValueError as error:
        raise ValueError(f"The recipe {path} is not YAML: {str(error).rstrip('.')}.") from error
    if content is None:
        content = {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError(
            f"The recipe {path} must have lines like 'learning_rate: 0.001', got {content!r:.80}."
        )
    return content


def recipe_parser(recipe_class: type[TrainingRecipe], **kwargs: Any) -> argparse.ArgumentParser:
    """Returns a parser with a flag for each plain field of a recipe; bad input raises ValueError, it does not exit.

    Args:
        recipe_class: Class of the recipe.
        **kwargs: As `argparse.ArgumentParser`.
    """
    sections = section_names(recipe_class)
    hints = get_type_hints(recipe_class)
    plain = dataclasses.make_dataclass(
        recipe_class.__name__,
        [
            (one.name, hints[one.name], _copy(one))
            for one in dataclasses.fields(recipe_class)
            if one.name not in sections
        ],
        kw_only=True,
    )
    parser = _Parser([plain], allow_abbrev=False, **kwargs)  # type: ignore[list-item]
    if sections:
        group = parser.add_argument_group("sections, whose settings are given as --SECTION.SETTING VALUE")
        for one in dataclasses.fields(recipe_class):
            if one.name in sections:
                # Only shown: `_take_sections` reads these flags.
                group.add_argument(f"--{one.name}.SETTING", metavar="VALUE", help=one.metadata["help"])
    return parser


def parse_recipe(
    recipe_class: type[RecipeT],
    flags: Sequence[str] = (),
    *,
    values: Mapping[str, Any] | None = None,
    parser: argparse.ArgumentParser | None = None,
) -> RecipeT:
    """Builds a recipe from a file's values and from flags, which take precedence.

    Args:
        recipe_class: Class of the recipe.
        flags: Arguments of a command line, for example
            `["--learning-rate", "1e-3", "--model.encoder.num-latents", "32"]`.
        values: Values by field name, for example of `read_recipe_file`.
        parser: What `recipe_parser` returned for the class, if it is there already.

    Raises:
        ValueError: A name is unknown, or a value is not of the field's type or range.
    """
    parser = parser or recipe_parser(recipe_class)
    hints = get_type_hints(recipe_class)
    sections = section_names(recipe_class)
    names = [one.name for one in dataclasses.fields(recipe_class)]
    as_flags: list[str] = []
    chosen: dict[str, Any] = {name: {} for name in sections}
    for name, value in (values or {}).items():
        if name not in names:
            raise ValueError(
                f"There is no setting {name!a:.80} in a recipe of this task. Known: {', '.join(names)}. Settings of "
                "the model are in the section model, such as model.encoder.num_latents."
            )
        if name in sections:
            chosen[name] = _section(value, name)
        elif value is None:
            if type(None) not in get_args(hints[name]):
                raise ValueError(
                    f"{name} has no value, expected {getattr(hints[name], '__name__', str(hints[name]))}."
                )
            chosen[name] = None
        elif value in ([], ()) and "list" in str(hints[name]):
            chosen[name] = []  # as flags, no value at all would be a mistake
        else:
            as_flags += _as_flags(name, value, is_list="list" in str(hints[name]))
    plain_flags, nested = _take_sections(list(flags), sections)
    for name, settings in nested.items():
        chosen[name] = merged(chosen[name], settings)
    # argparse fills in a default only where the namespace has no attribute: what is still unset was not said.
    unset = object()
    plain_names = [name for name in names if name not in sections]
    namespace = argparse.Namespace(**dict.fromkeys(plain_names, unset))
    for arguments in (as_flags, plain_flags):
        parser.parse_args(arguments, namespace)
        chosen |= {
            name: value
            for name, value in vars(namespace).items()
            if value is not unset and name in plain_names
        }
    return recipe_class(**chosen)


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{printable(message).rstrip('.'):.500}.")  # a value may be of any length


def _copy(one: dataclasses.Field[Any]) -> Any:
    if one.default is dataclasses.MISSING and one.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=one.default_factory, metadata=one.metadata)
    return dataclasses.field(default=one.default, metadata=one.metadata)


def _as_flags(name: str, value: Any, *, is_list: bool) -> list[str]:
    if isinstance(value, (list, tuple)):
        if not is_list:
            raise ValueError(f"{name} is {value!r:.80}, expected one value.")
        # An item that looks like a flag would be taken for one.
        if flags := [item for item in value if str(item).startswith("--")]:
            raise ValueError(f"{name} has the items {flags!r:.80}, expected values.")
        return [f"--{name}", *map(str, value)]
    if isinstance(value, dict):
        raise ValueError(f"{name} is {value!r:.80}, expected one value or a list.")
    return [f"--{name}={value}"]


def _take_sections(flags: list[str], sections: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes `--section.a.b value …` and `--section.a.b=value` out of a command line."""
    plain: list[str] = []
    nested: dict[str, Any] = {}
    index = 0
    while index < len(flags):
        flag, equals, value = flags[index].partition("=")
        path = flag.removeprefix("--").replace("-", "_").split(".")
        index += 1
        if flag.startswith("--") and flag.removeprefix("--").replace("-", "_") in sections:
            raise ValueError(f"{flag} has settings of its own, which are given as {flag}.SETTING VALUE.")
        if not flag.startswith("--") or len(path) < 2 or path[0] not in sections:
            plain.append(flags[index - 1])
            continue
        words = [value] if equals else []
        while not equals and index < len(flags) and not flags[index].startswith("--"):
            words.append(flags[index])
            index += 1
        if not words or not all(path):
            raise ValueError(f"{flag} needs a value, such as {flag} 32.")
        read: list[Any] = [_read(word, flag) for word in words]
        setting: Any = read[0] if len(read) == 1 else read
        for name in reversed(path):
            setting = {name: setting}
        nested = merged(nested, setting)
    return plain, nested


def _read(word: str, flag: str) -> Any:
    try:
        return _numbers(read_yaml(word))
    except ValueError as error:
        raise ValueError(f"{flag} has the value {word!r:.80}, which cannot be read.") from error


def _section(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {value!r:.80}, expected settings by name.")
    settings: dict[str, Any] = _numbers(value)
    return settings


def _numbers(value: Any) -> Any:
    """Returns the value with texts like 1e-3, numbers to everybody but YAML, as numbers."""
    if isinstance(value, dict):
        return {key: _numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def merged(first: Any, second: Any) -> Any:
    """Returns nested settings with those of `second` laid over those of `first`."""
    if not isinstance(first, dict) or not isinstance(second, dict):
        return second
    return {**first, **{name: merged(first.get(name), value) for name, value in second.items()}}
