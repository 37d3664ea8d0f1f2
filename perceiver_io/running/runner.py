"""The one runner: trains, evaluates, resumes and writes what a task declares.

from perceiver_io.running.find_task import get_task
from perceiver_io.running.runner import evaluate, predict, train

task = get_task("image-classification")
metrics = train(task, task.recipe_class(dataset="digits", output_dir="runs/digits"))
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from perceiver_io.data.sources import files_of
from perceiver_io.extras import require
from perceiver_io.files import check_outputs
from perceiver_io.model_card import CARD_FILE, model_card
from perceiver_io.pictures.attention_view import draw_view
from perceiver_io.pictures.learning_curve import draw_learning_curve, has_losses
from perceiver_io.registry import TASKS
from perceiver_io.running.building import build
from perceiver_io.running.evaluator import evaluate_rows
from perceiver_io.running.fitting import fitted
from perceiver_io.running.measures import LOSS, scalars, whether_higher_is_better
from perceiver_io.running.optimization import training_arguments
from perceiver_io.running.recipe import TrainingRecipe
from perceiver_io.running.recipe_parsing import parse_recipe
from perceiver_io.running.results import evaluation_results, training_results
from perceiver_io.running.run_folder import RunFolder
from perceiver_io.running.task import Drawing, PredictOptions, Setup, Task, TrainableTask
from perceiver_io.running.trainer import Trainer

__all__ = ["attention", "evaluate", "predict", "train"]

logger = logging.getLogger(__name__)


def train(task: TrainableTask, recipe: TrainingRecipe) -> dict[str, Any]:
    """Trains a model, evaluates it on the test data, once, and writes the run folder.

    Args:
        task: The task.
        recipe: Its recipe.

    Returns:
        What was written to `metrics.json`, where a number that is not finite is null.

    Raises:
        ValueError: The recipe, the data, the output folder, or a checkpoint to resume is not usable.
        OSError: Something cannot be written.
        KeyboardInterrupt: On Ctrl-C; resuming goes on from the last checkpoint.
    """
    require("matplotlib", extra="train")
    if recipe.output_dir is None:
        raise ValueError("There is no output folder. Choose one with --output-dir.")
    run = RunFolder(recipe.output_dir)
    if recipe.resume and run.is_started:
        recipe = recipe.completed(run.recipe())
    run.check(recipe, task=task.name)
    if recipe.resume and run.is_complete:
        logger.warning("The run %s is complete already.", run)
        metrics = run.metrics()
        if "split" not in metrics:
            raise ValueError(
                f"The results {run.metrics_file} are not those of a training: they do not say their split. Remove the "
                "file, and --resume evaluates again."
            )
        return metrics
    args = _arguments(recipe, run)
    with run.held(is_main_process=args.should_save):
        return _train(task, recipe, run, args)


def _arguments(recipe: TrainingRecipe, run: RunFolder) -> TrainingArguments:
    return training_arguments(
        recipe, checkpoints=str(run.checkpoints), has_validation=recipe.validation_fraction > 0
    )


def _train(
    task: TrainableTask, recipe: TrainingRecipe, run: RunFolder, args: TrainingArguments
) -> dict[str, Any]:
    has_validation = recipe.validation_fraction > 0
    with args.main_process_first(desc="loading the data"):
        data = task.data(recipe)
    if data.validation is None and has_validation:
        raise ValueError("The data has no validation set. Pass --validation-fraction 0.")
    recipe = fitted(
        recipe,
        num_train=len(data.train),
        num_validation=0 if data.validation is None or not has_validation else len(data.validation),
        num_processes=args.world_size,
    )
    args = _arguments(recipe, run)
    setup = build(task, recipe, data)
    if args.metric_for_best_model is not None:
        args.greater_is_better = whether_higher_is_better(args.metric_for_best_model, task.measures(setup))
    brought_by = TASKS.provider(type(task))
    with run.created(recipe, task=task.name, provided_by=brought_by, is_main_process=args.should_save):
        trainer = Trainer(
            model=setup.model,
            recipe=recipe,
            args=args,
            train_data=data.train,
            validation_data=data.validation if has_validation else None,
            collate=task.collator(setup, train=True),
            weight=task.weight,
            evaluate=lambda forward: scalars(
                evaluate_rows(task, setup, data.validation, forward=forward, title="validating")
            ),
            processor=setup.processor,
        )
        trainer.fit(resume=recipe.resume)
        values = evaluate_rows(task, setup, data.test, forward=trainer.forward, title="testing")
        metrics = evaluation_results(task, setup, values, split="test", num_samples=len(data.test))
        metrics |= training_results(trainer, setup)
        if args.should_save:
            _write(task, run, setup, metrics)
    return metrics


def evaluate(
    task: TrainableTask,
    source: str | Path,
    *,
    split: str = "test",
    recipe: TrainingRecipe | None = None,
) -> dict[str, Any]:
    """Evaluates a model on a split of its data, under its run's own precision and device, or as a recipe says.

    Args:
        task: The task of the model.
        source: A run folder; with a recipe any model of the task.
        split: "test", "validation" or "train".
        recipe: Which data, precision and device; the run's own if None.

    Raises:
        ValueError: There is no such model, recipe or split, or the data has other classes than the model.
    """
    if recipe is None:
        stored = {name: value for name, value in RunFolder(source).recipe().items() if name != "task"}
        recipe = parse_recipe(task.recipe_class, values=stored)
    loaded = task.load(source, device="cpu" if recipe.device == "cpu" else None)
    data = task.data(recipe)
    rows = data.named(split)
    setup = Setup(recipe=recipe, data=data, model=loaded.model, processor=loaded.processor)
    names = loaded.model.config.id2label
    if data.class_names and names is not None and list(data.class_names) != [names[i] for i in sorted(names)]:
        raise ValueError(
            f"The data has the classes {list(data.class_names)}, the model "
            f"{list(names.values())}: the data changed since the training."
        )
    values = evaluate_rows(task, setup, rows)
    return evaluation_results(task, setup, values, split=split, num_samples=len(rows))


def predict(
    task: Task, source: str | Path, inputs: Sequence[str], options: PredictOptions | None = None
) -> list[dict[str, Any]]:
    """Applies a saved model to inputs.

    Args:
        task: The task of the model.
        source: A run folder, any folder that `perceiver_io.from_pretrained` reads, or a hub id.
        inputs: Files, or what the task takes; a folder stands for all files below it that the task reads, sorted.
        options: The task's own; its defaults if None.

    Returns:
        One result per input, or per group of inputs, in order, as JSON values.

    Raises:
        ValueError: There is no model of this task, an input is bad, or a folder has no files for the task.
        OSError: Something cannot be written or fetched.
    """
    options = task.options_class() if options is None else options
    if options.output_dir is not None and not task.writes_files:
        raise ValueError(f"The task {task.name} writes no files: leave out --output-dir.")
    if options.output_dir is not None:
        options = replace(options, output_dir=os.path.expanduser(options.output_dir))
    inputs = _files(inputs, task)
    return task.predict(task.load(source), inputs, options)


def attention(
    task: Task,
    source: str | Path,
    inputs: Sequence[str],
    output: str | Path,
    *,
    latents: Sequence[int] | None = None,
    overwrite: bool = False,
) -> None:
    """Draws what some latents of a saved model attend to in an input.

    Args:
        task: The task of the model.
        source: As `predict`.
        inputs: The file to look at, or the files that belong together.
        output: The picture to write; its suffix says the format.
        latents: Latents to draw; a choice of them if None.
        overwrite: Whether the picture may replace a file that is no input.

    Raises:
        ValueError: As `predict`; or a latent is out of range, or the picture would replace a file.
        OSError: The picture cannot be written.
    """
    output = Path(output).expanduser()
    # An input may be several files, by name: image=cat.png,audio=cat.wav.
    read = [part.rpartition("=")[2] for one in inputs for part in (f"={one}", *one.split(","))]
    check_outputs(output.parent, [output.name], filter(os.path.exists, read), overwrite=overwrite)
    draw_view(task.attention_view(task.load(source), list(inputs), latents=latents), output, latents=latents)


def _files(inputs: Sequence[str], task: Task) -> list[str]:
    """Returns inputs with the files of folders instead of them."""
    suffixes = task.file_suffixes()
    files: list[str] = []
    for one in inputs:
        if not one or not suffixes or not Path(one).is_dir():
            files.append(one)
            continue
        found = files_of(Path(one), suffixes)
        if not found:
            known = ", ".join(sorted(suffixes))
            raise ValueError(f"The folder {one} has no file that the task {task.name} reads: {known}.")
        files += found
    return files


def _write(task: TrainableTask, run: RunFolder, setup: Setup, metrics: dict[str, Any]) -> None:
    run.write_model(setup.model, setup.processor)
    drawings: dict[str, Drawing] = dict(task.pictures(setup, metrics))
    if has_losses(metrics["history"]):
        chosen = (metrics["best_metric"]["name"] or LOSS).removeprefix("eval_")
        drawings["learning_curve.png"] = partial(
            draw_learning_curve,
            metrics["history"],
            measure=None if chosen == LOSS else chosen,
            kept_step=metrics["best_step"] or metrics["steps"],
        )
    else:
        logger.warning("No loss was logged, so there is no learning curve. Lower log_every to get one.")
    for name, draw in drawings.items():
        with run.writing(name) as path:
            draw(path)
    dataset = getattr(setup.recipe, "dataset", None)
    card = model_card(
        setup.model,
        name=str(run.path),
        task=task.name,
        pipeline_tag=task.pipeline_tag,
        dataset=None if dataset is None else Path(dataset).name,
        metrics={name: value for name, value in metrics.items() if name.startswith("test_")},
        has_processor=setup.processor is not None,
    )
    run.write_text(CARD_FILE, str(card))
    run.write_metrics(metrics)
