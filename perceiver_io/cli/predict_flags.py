"""The flags of `perceiver-io predict`, which are the options of the model's task."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any, NoReturn

from transformers import HfArgumentParser

from perceiver_io.running import PredictOptions, Task

__all__ = ["parse_prediction", "predict_parser"]


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}. See: {self.prog} MODEL --help")


def predict_parser(task: Task, *, usage: str) -> argparse.ArgumentParser:
    """Returns a parser of all that follows the model; bad input raises ValueError, it does not exit.

    Args:
        task: The model's task.
        usage: The first line of its help.
    """
    parser = _Parser(
        [task.options_class],  # type: ignore[list-item]
        prog="perceiver-io predict",
        usage=usage,
        description=f"Flags for the task {task.name}:",
        add_help=False,
        allow_abbrev=False,
    )
    for flag in ("--json", "--traceback"):
        parser.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--task", help="task of the model, where the folder does not say it")
    parser.add_argument("inputs", metavar=task.input_metavar, nargs="+")
    return parser


def parse_prediction(
    task: Task, parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[list[str], PredictOptions, argparse.Namespace]:
    """Parses what follows the model.

    Args:
        task: The model's task.
        parser: What `predict_parser` returned for it.
        arguments: The arguments.

    Returns:
        The inputs, the task's options, and the flags that every command has.

    Raises:
        ValueError: A flag is unknown, is given twice where that would forget the first, or has a wrong value.
    """
    lists = {
        action.dest: action for action in parser._actions if action.nargs == "+" and action.option_strings
    }
    for action in lists.values():
        count = sum(argument.partition("=")[0] in action.option_strings for argument in arguments)
        if count > 1:
            raise ValueError(
                f"{action.option_strings[-1]} is given {count} times: give all values after one."
            )
    flags = parser.parse_args(list(arguments))
    names = [one.name for one in dataclasses.fields(task.options_class)]
    values: dict[str, Any] = {name: getattr(flags, name) for name in names}
    return flags.inputs, task.options_class(**values), flags
