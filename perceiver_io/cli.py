"""The `perceiver-io` command: train, evaluate, predict, attention, info."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

import perceiver_io
from perceiver_io.registry import ADAPTERS, DECODERS, TASKS
from perceiver_io.training import (
    RunFolder,
    Task,
    TrainingRecipe,
    parse_recipe,
    read_recipe_file,
    recipe_parser,
)
from perceiver_io.training.run_folder import no_progress_bars

__all__ = ["main"]

_BAD_INPUT = 2
_INTERRUPTED = 130
# What is raised for bad input: wrong values, files that can't be read or written, missing extras, a loss that diverges.
_EXPECTED = (ValueError, OSError, ImportError, FloatingPointError)
# How torch says, in a plain RuntimeError, that the machine's memory (not an accelerator's) is used up.
_NO_MEMORY = "DefaultCPUAllocator"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Results go to stdout; logs, progress and errors go to stderr.

    Args:
        argv: Arguments; those of the process if None.

    Returns:
        The exit status: 0, 2 for bad input, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    try:
        options, rest = parser.parse_known_args(arguments)
    except SystemExit as stop:  # --help, or bad usage, which argparse has explained
        return int(stop.code or 0)
    try:
        if rest and options.command != "train":
            raise ValueError(
                f"Unknown arguments: {' '.join(rest)}. See: perceiver-io {options.command} --help"
            )
        options.rest = rest
        # Libraries that print, print to stderr: stdout is for results.
        with contextlib.redirect_stdout(sys.stderr):
            output = options.run(options)
    except _EXPECTED as error:
        if options.traceback:
            traceback.print_exc()
        print(f"perceiver-io: error: {_message(error)}", file=sys.stderr)
        return _BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and _NO_MEMORY not in str(error):
            raise
        if options.traceback:
            traceback.print_exc()
        print(
            "perceiver-io: error: There is not enough memory. Choose smaller batches, smaller images, a smaller model "
            f"or gradient checkpointing. ({_message(error):.200})",
            file=sys.stderr,
        )
        return _BAD_INPUT
    except KeyboardInterrupt:
        print(f"perceiver-io: interrupted.{_how_to_go_on(options)}", file=sys.stderr)
        return _INTERRUPTED
    if output:
        print(output)
    return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the results as JSON")
    common.add_argument("--traceback", action="store_true", help="show where an error comes from")
    parser = argparse.ArgumentParser(
        prog="perceiver-io", description="Train and use Perceiver IO models.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"perceiver-io {perceiver_io.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Any, summary: str, **kwargs: Any) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, parents=[common], help=summary, description=summary, allow_abbrev=False, **kwargs
        )
        command.set_defaults(run=run)
        return command

    # Its own --help is that of the task's recipe.
    train = add("train", _train, "train a model", add_help=False)
    train.add_argument("task", nargs="?", help=f"one of: {', '.join(TASKS.names())}")
    train.add_argument("--config", metavar="FILE", help="recipe file in YAML; flags take precedence over it")
    train.add_argument(
        "-h", "--help", action="store_true", help="show this and the settings of the task's recipe"
    )

    evaluate = add("evaluate", _evaluate, "evaluate a trained model on a split of its data")
    evaluate.add_argument("folder", metavar="RUN", help="run folder")
    evaluate.add_argument("--split", default="test", help="test (default), validation or train")

    predict = add("predict", _predict, "apply a trained model to files")
    predict.add_argument("folder", metavar="RUN", help="run folder")
    predict.add_argument("files", metavar="FILE", nargs="+")
    predict.add_argument("--top-k", type=int, default=3, help="how many classes to print (default: 3)")

    attention = add("attention", _attention, "draw what a trained model attends to in a file")
    attention.add_argument("folder", metavar="RUN", help="run folder")
    attention.add_argument("file", metavar="FILE")
    attention.add_argument(
        "-o", "--output", required=True, metavar="PICTURE", help="picture to write, such as maps.png"
    )
    attention.add_argument("--latents", type=_indices, metavar="I,J,…", help="latents to draw, such as 0,1,2")
    for command in (predict, attention):
        command.add_argument("--task", help="task of the model, where the folder has no recipe.yaml")

    info = add("info", _info, "describe this installation, or a model in a folder")
    info.add_argument("folder", metavar="FOLDER", nargs="?", help="run folder, or folder with a saved model")
    return parser


def _train(options: argparse.Namespace) -> str:
    if options.task is None or options.task.startswith("-"):
        usage = "perceiver-io train TASK [--config FILE] [--SETTING VALUE …]"
        if options.help:
            return f"usage: {usage}\n\nTasks: {', '.join(TASKS.names())}\nSettings: perceiver-io train TASK --help"
        raise ValueError(f"Which task? {usage}; tasks: {', '.join(TASKS.names())}.")
    task = _task(options.task)
    parser = recipe_parser(
        task.recipe_class,
        prog=f"perceiver-io train {options.task}",
        usage=f"perceiver-io train {options.task} [--config FILE] [--json] [--SETTING VALUE …]",
        add_help=False,
    )
    if options.help:
        return parser.format_help().rstrip()
    recipe = _recipe(task, parser, options)
    if recipe.output_dir is not None:
        options.output_dir = recipe.output_dir
    metrics = task.train(recipe)
    if os.environ.get("RANK", "0") != "0":
        return ""  # under torchrun the first process speaks for all
    summary = f"{task.describe_metrics(metrics)}\nwritten to {recipe.output_dir}"
    return _as_json(metrics) if options.json else summary


def _recipe(task: Task, parser: argparse.ArgumentParser, options: argparse.Namespace) -> TrainingRecipe:
    values = {} if options.config is None else read_recipe_file(options.config, task=options.task)
    recipe = parse_recipe(task.recipe_class, options.rest, values=values, parser=parser)
    if recipe.resume and recipe.output_dir is not None:
        # A run goes on with its own settings; what is said here must agree with them.
        run = RunFolder(recipe.output_dir)
        stored = run.recipe()
        if stored.pop("task", options.task) != options.task:
            raise ValueError(f"The run {run} is of another task than {options.task!r}.")
        recipe = parse_recipe(task.recipe_class, options.rest, values={**stored, **values}, parser=parser)
    return recipe


def _evaluate(options: argparse.Namespace) -> str:
    task, run = _trained(options.folder)
    metrics = task.evaluate(run, split=options.split)
    return _as_json(metrics) if options.json else task.describe_metrics(metrics)


def _predict(options: argparse.Namespace) -> str:
    task, run = _trained(options.folder, options.task)
    results = task.predict(run, options.files, top_k=options.top_k)
    return _as_json(results) if options.json else "\n".join(map(task.describe_prediction, results))


def _attention(options: argparse.Namespace) -> str:
    task, run = _trained(options.folder, options.task)
    task.draw_attention(run, options.file, options.output, latents=options.latents)
    return _as_json({"picture": options.output}) if options.json else f"written to {options.output}"


def _info(options: argparse.Namespace) -> str:
    content = _installation() if options.folder is None else _model(options.folder)
    if options.json:
        return _as_json(content)
    return "\n".join(f"{name:16} {_as_text(value)}" for name, value in content.items())


def _installation() -> dict[str, Any]:
    accelerators = [f"{torch.accelerator.current_accelerator()}"] * (
        torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    )
    return {
        "perceiver_io": perceiver_io.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "devices": ["cpu", *(f"{name}:{index}" for index, name in enumerate(accelerators))],
        "adapters": ADAPTERS.names(),
        "decoders": DECODERS.names(),
        "tasks": TASKS.names(),
    }


def _model(folder: str) -> dict[str, Any]:
    if not Path(folder).is_dir():
        raise ValueError(f"There is no folder {folder}.")
    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"There is no model in {folder}: it has no config.json.")
    with no_progress_bars():
        model = perceiver_io.from_pretrained(folder)
    config = model.config
    content: dict[str, Any] = {
        "model": type(model).__name__,
        "parameters": model.num_parameters(),
        **{f"input {name}": part.to_dict() for name, part in config.inputs.items()},
        "encoder": config.encoder.to_dict(),
        **{f"output {name}": part.to_dict() for name, part in config.outputs.items()},
    }
    run = RunFolder(folder)
    if run.is_complete:
        scalars = {name: value for name, value in run.metrics().items() if isinstance(value, (int, float))}
        content["results"] = scalars
    return content


def _trained(folder: str, task: str | None = None) -> tuple[Task, RunFolder]:
    run = RunFolder(folder)
    if task is None and not run.recipe_file.is_file() and (run.path / "config.json").is_file():
        raise ValueError(
            f"{run} has a model but no recipe.yaml, which says its task. predict and attention take it as --task."
        )
    name = task or run.recipe().get("task")
    if name is None:
        raise ValueError(f"The recipe {run.recipe_file} does not say which task it is for.")
    return _task(name), run


def _task(name: str) -> Task:
    task: Task = TASKS.get(name)()
    return task


def _indices(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected indices such as 0,1,2, got {text!r}") from None


def _as_json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_as_text(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _message(error: BaseException) -> str:
    """Returns what an error says, on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, OSError) and error.filename and str(error.filename) not in text:
        text = f"{text}: {error.filename}"
    return " ".join(text.split()) or type(error).__name__


def _how_to_go_on(options: argparse.Namespace) -> str:
    folder = getattr(options, "output_dir", None)
    if options.command != "train" or folder is None:
        return ""
    command = ["perceiver-io", "train", options.task, "--output-dir", folder, "--resume"]
    return f" Go on with: {shlex.join(command)}"


if __name__ == "__main__":
    sys.exit(main())
