"""The `perceiver-io` command: train, evaluate, predict, attention, convert, init, info."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import torch

import perceiver_io
from perceiver_io.cli import conversion
from perceiver_io.cli.description import REGISTRIES, installation, listing_text, saved_model
from perceiver_io.cli.imports import import_code
from perceiver_io.cli.predict_flags import parse_prediction, predict_parser
from perceiver_io.files import check_not_inside
from perceiver_io.printable import printable, shortened
from perceiver_io.registry import TASKS
from perceiver_io.running import (
    RunFolder,
    Task,
    TrainableTask,
    TrainingRecipe,
    parse_recipe,
    read_recipe_file,
    recipe_parser,
)
from perceiver_io.running.find_task import find_task, get_task
from perceiver_io.running.interrupt import Terminated, terminating
from perceiver_io.running.json_text import json_text
from perceiver_io.running.loaded_model import check_source
from perceiver_io.running.recipe_parsing import merged
from perceiver_io_command import BAD_INPUT, INTERRUPTED, printing

__all__ = ["main"]

_TERMINATED = 143
# Commands whose other flags depend on the task, and are parsed once that is known.
_TWO_STEPS = ("train", "evaluate", "predict")
# What is raised for bad input: wrong values, files that can't be read or written, missing extras, a loss that diverges.
_EXPECTED = (ValueError, OSError, ImportError, FloatingPointError)
# How torch says, in a plain RuntimeError, that the machine's memory (not an accelerator's) is used up.
_NO_MEMORY = "DefaultCPUAllocator"
_MODEL = "folder of a model in any layout, or hub id"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Results go to stdout; logs, progress and errors go to stderr.

    Args:
        argv: Arguments; those of the process if None.

    Returns:
        The exit status, which is 0, or 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM, 141 if nobody reads what
        is printed any more.
    """

    def run() -> int:
        try:
            with terminating():
                return _main(argv)
        except KeyboardInterrupt as stop:  # before or after the work
            return _stopped(stop)

    return printing(run)


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    try:
        options, rest = parser.parse_known_args(arguments)
    except SystemExit as stop:  # --help, or bad usage, which argparse has explained
        return int(stop.code or 0)
    try:
        if rest and options.command not in _TWO_STEPS:
            raise ValueError(
                f"Unknown arguments: {' '.join(rest)}. See: perceiver-io {options.command} --help"
            )
        options.rest = rest
        # Libraries that print, print to stderr: stdout is for results.
        with contextlib.redirect_stdout(sys.stderr):
            for name in getattr(options, "imports", ()):
                import_code(name)
            output = options.run(options)
    except _EXPECTED as error:
        if options.traceback:
            traceback.print_exc()
        print(f"perceiver-io: error: {shortened(_message(error))}", file=sys.stderr)
        return BAD_INPUT
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
        return BAD_INPUT
    except KeyboardInterrupt as stop:
        return _stopped(stop, _how_to_go_on(options))
    if output:
        print(printable(output, lines=True))
    return 0


def _stopped(stop: KeyboardInterrupt, how_to_go_on: str = "") -> int:
    terminated = isinstance(stop, Terminated)
    print(f"perceiver-io: {'terminated' if terminated else 'interrupted'}.{how_to_go_on}", file=sys.stderr)
    return _TERMINATED if terminated else INTERRUPTED


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        """Does not pass over what cannot be printed, as argparse does."""
        if message:
            (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        super().error(shortened(printable(message)))


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the results as JSON")
    common.add_argument("--traceback", action="store_true", help="show where an error comes from")
    parser = _Parser(
        prog="perceiver-io", description="Train and use Perceiver IO models.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"perceiver-io {perceiver_io.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    with_imports = _Parser(add_help=False)
    with_imports.add_argument(
        "--import",
        dest="imports",
        metavar="FILE_OR_MODULE",
        action="append",
        default=[],
        help="Python file or module to import first, which registers adapters, decoders or tasks; may be repeated",
    )

    def add(name: str, run: Any, summary: str, **kwargs: Any) -> argparse.ArgumentParser:
        parents = [common] if name in ("convert", "init") else [common, with_imports]
        command = commands.add_parser(
            name, parents=parents, help=summary, description=summary, allow_abbrev=False, **kwargs
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

    evaluate = add(
        "evaluate",
        _evaluate,
        "evaluate a trained model on a split of its data, or of other data",
        usage="perceiver-io evaluate MODEL [--split SPLIT] [--json] [--SETTING VALUE …]",
        epilog="Settings are those of a recipe, such as --dataset; by default the run's own. A model that is no run's "
        "needs them: perceiver-io train TASK --help lists them.",
    )
    evaluate.add_argument("source", metavar="MODEL", help=f"run folder, or {_MODEL}")
    evaluate.add_argument("--task", help="task of the model, where the folder does not say it")
    evaluate.add_argument("--split", default="test", help="test (default), validation or train")

    # Its own --help is that of the task.
    predict = add("predict", _predict, "apply a model to files or texts", add_help=False)
    predict.add_argument("--task", help="task of the model, where the folder does not say it")
    predict.add_argument("-h", "--help", action="store_true", help="show this and the flags of MODEL's task")

    attention = add("attention", _attention, "draw what a trained model attends to in a file")
    attention.add_argument("source", metavar="MODEL", help=_MODEL)
    attention.add_argument("inputs", metavar="INPUT", nargs="+", help="a file, or files that belong together")
    attention.add_argument(
        "-o", "--output", required=True, metavar="PICTURE", help="picture to write, such as maps.png"
    )
    attention.add_argument("--overwrite", action="store_true", help="replace the picture if it exists")
    attention.add_argument("--latents", type=_indices, metavar="I,J,…", help="latents to draw, such as 0,1,2")
    attention.add_argument("--task", help="task of the model, where the folder does not say it")

    convert = add("convert", _convert, "write a model in another layout")
    convert.add_argument(
        "source", metavar="SOURCE", help=f"{_MODEL}, or a parameter file of the original release"
    )
    convert.add_argument(
        "--to", choices=("perceiver-io", "transformers"), default="perceiver-io", help="layout to write"
    )
    convert.add_argument(
        "--model",
        metavar="NAME_OR_FILE",
        help="name of a published model, or a config.json of this package, that the weights are of; parameter files "
        "do not say it themselves",
    )
    init = add("init", _init, "write a published model with fresh random weights")
    init.add_argument(
        "model", metavar="NAME_OR_FILE", help="name of a published model, or a config.json of this package"
    )
    init.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    for command in (convert, init):
        command.add_argument("-o", "--output-dir", required=True, metavar="FOLDER", help="folder to write")
        command.add_argument("--overwrite", action="store_true", help="replace the model in the folder")

    info = add("info", _info, "describe this installation, or a model in a folder")
    info.add_argument("folder", metavar="FOLDER", nargs="?", help="run folder, or folder with a saved model")
    for kind in REGISTRIES:
        info.add_argument(
            f"--{kind}",
            dest="kinds",
            action="append_const",
            const=kind,
            help=f"list the {kind} that are installed, each with its class and where it comes from",
        )
    return parser


def _train(options: argparse.Namespace) -> str:
    if options.task is None or options.task.startswith("-"):
        usage = "perceiver-io train TASK [--config FILE] [--SETTING VALUE …]"
        if options.help:
            return f"usage: {usage}\n\nTasks: {', '.join(TASKS.names())}\nSettings: perceiver-io train TASK --help"
        raise ValueError(f"Which task? {usage}; tasks: {', '.join(TASKS.names())}.")
    task = _trainable(get_task(options.task), "train")
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
    from perceiver_io.running.runner import train

    metrics = train(task, recipe)
    if os.environ.get("RANK", "0") != "0":
        return ""  # under torchrun the first process speaks for all
    summary = f"{task.describe_results(metrics)}\nwritten to {recipe.output_dir}"
    return json_text(metrics) if options.json else summary


def _recipe(
    task: TrainableTask, parser: argparse.ArgumentParser, options: argparse.Namespace
) -> TrainingRecipe:
    values = {} if options.config is None else read_recipe_file(options.config, task=options.task)
    recipe = parse_recipe(task.recipe_class, options.rest, values=values, parser=parser)
    if recipe.output_dir is None:
        return recipe
    run = RunFolder(recipe.output_dir)
    if recipe.overwrite and options.config is not None:
        check_not_inside(run, [options.config])
    if recipe.resume and run.is_started:
        # A run goes on with its own settings; what is said here must agree with them.
        stored = run.recipe()
        if stored.pop("task", options.task) != options.task:
            raise ValueError(f"The run {run} is of another task than {options.task!r}.")
        recipe = parse_recipe(task.recipe_class, options.rest, values=merged(stored, values), parser=parser)
    return recipe


def _evaluate(options: argparse.Namespace) -> str:
    check_source(options.source)
    run = RunFolder(options.source)
    if not run.recipe_file.is_file() and not options.rest:
        run.recipe()  # says what is missing; a model that is no run's needs flags that say the data
    task = _trainable(_task_of(options.source, options), "evaluate")
    values = run.recipe() if run.recipe_file.is_file() else {"pretrained": options.source}
    values.pop("task", None)
    from perceiver_io.running.runner import evaluate

    recipe = parse_recipe(task.recipe_class, options.rest, values=values)
    if run.recipe_file.is_file():
        stored = parse_recipe(task.recipe_class, values=values)
        if changes := _changes_of_model(recipe, stored):
            raise ValueError(
                f"The model is trained: {', '.join(changes)} cannot be chosen any more. Leave them out."
            )
    metrics = evaluate(task, options.source, split=options.split, recipe=recipe)
    return json_text(metrics) if options.json else task.describe_results(metrics)


def _changes_of_model(recipe: TrainingRecipe, stored: TrainingRecipe) -> list[str]:
    """Names the settings that the model was built by and that differ."""
    names = {name.partition(".")[0] for name in recipe.changes_from(stored.settings())}
    return sorted(names & {"model", "variant", "pretrained"})


def _predict(options: argparse.Namespace) -> str:
    # The task says which flags there are, and the model mostly says the task: so MODEL comes first.
    source = options.rest.pop(0) if options.rest and not options.rest[0].startswith("-") else None
    usage = "perceiver-io predict MODEL INPUT… [--FLAG VALUE …]"
    if source is None and options.task is None:
        if options.help:
            text = f"usage: {usage}\n\nMODEL: {_MODEL}\nTasks: {', '.join(TASKS.names())}\n"
            return (
                f"{text}Flags: perceiver-io predict MODEL --help, or: perceiver-io predict --task TASK --help"
            )
        raise ValueError(f"Which model? {usage}; flags of the task come after MODEL.")
    task = _task_of(source or "", options)
    parser = predict_parser(task, usage=usage.replace("INPUT", task.input_metavar))
    if options.help:
        return parser.format_help().rstrip()
    if source is None:
        raise ValueError(f"Which model? {usage}; flags of the task come after MODEL.")
    check_source(source)
    inputs, task_options, flags = parse_prediction(task, parser, options.rest)
    options.json, options.traceback = options.json or flags.json, options.traceback or flags.traceback
    from perceiver_io.running.runner import predict

    results = predict(task, source, inputs, task_options)
    return json_text(results) if options.json else "\n".join(map(task.describe_prediction, results))


def _attention(options: argparse.Namespace) -> str:
    check_source(options.source)
    task = _task_of(options.source, options)
    from perceiver_io.running.runner import attention

    attention(
        task,
        options.source,
        options.inputs,
        options.output,
        latents=options.latents,
        overwrite=options.overwrite,
    )
    return json_text({"picture": options.output}) if options.json else f"written to {options.output}"


def _convert(options: argparse.Namespace) -> str:
    content = conversion.convert(
        options.source,
        options.output_dir,
        layout=options.to,
        model=options.model,
        overwrite=options.overwrite,
    )
    return _written(content, options)


def _init(options: argparse.Namespace) -> str:
    content = conversion.init(
        options.model, options.output_dir, seed=options.seed, overwrite=options.overwrite
    )
    return _written(content, options)


def _written(content: dict[str, Any], options: argparse.Namespace) -> str:
    if options.json:
        return json_text(content)
    return f"{content['model']}, {content['parameters']:,} parameters\nwritten to {content['folder']}"


def _info(options: argparse.Namespace) -> str:
    if options.kinds:
        if options.folder is not None:
            raise ValueError(
                f"--{options.kinds[0]} lists what is installed, which is the same for every model: leave it or "
                f"{options.folder} out."
            )
        listings = {kind: REGISTRIES[kind].listing() for kind in options.kinds}
        if options.json:
            return json_text(listings)
        return "\n\n".join(listing_text(kind, rows) for kind, rows in listings.items())
    content = installation() if options.folder is None else saved_model(options.folder)
    if options.json:
        return json_text(content)
    return "\n".join(f"{printable(name):16} {_as_text(value)}" for name, value in content.items())


def _task_of(source: str, options: argparse.Namespace) -> Task:
    """The task that --task names, or else that of the model."""
    return find_task(source) if options.task is None else get_task(options.task)


def _trainable(task: Task, command: str) -> TrainableTask:
    if not isinstance(task, TrainableTask):
        raise ValueError(
            f"perceiver-io {command} does not know the task {task.name!r}: it has models to predict with, but no "
            "training of its own."
        )
    return task


def _indices(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected indices such as 0,1,2, got {text!r}") from None


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{printable(str(name))} {_as_text(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_as_text, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else printable(str(value))


def _message(error: BaseException) -> str:
    """Returns what an error says, on one line, without what could steer a terminal."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, OSError) and error.filename and str(error.filename) not in text:
        text = f"{text}: {error.filename}"
    line = " ".join(text.split()) or type(error).__name__
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)


def _how_to_go_on(options: argparse.Namespace) -> str:
    folder = getattr(options, "output_dir", None)
    if options.command != "train" or folder is None:
        return ""
    imports = [word for name in options.imports for word in ("--import", name)]
    command = [*_started_as(), "train", options.task, *imports, "--output-dir", folder, "--resume"]
    return f" Go on with: {shlex.join(command)}"


def _started_as() -> list[str]:
    """How this process was started: as the command, or as a module that knows a task of its own."""
    module = sys.modules["__main__"].__spec__
    if module is None or module.name.startswith("perceiver_io."):
        return ["perceiver-io"]
    return ["python", "-m", module.name]
