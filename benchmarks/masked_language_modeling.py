"""How well hidden bytes of Python's standard library are guessed: a trained model beside byte n-grams.

Trains the recipe that comes with the task, or reads finished runs of it, and counts n-grams that see both sides in the
same training texts; see byte_ngrams.py. Each is then asked for the very bytes that the run's evaluation on its test
texts hides. Prints the bits that a hidden byte costs and the share that is guessed. What the n-grams need fitted is
fitted on the run's validation texts.

    python benchmarks/masked_language_modeling.py --seeds 0 1 2    # the table, about nine minutes for each seed
    python benchmarks/masked_language_modeling.py --runs runs/mlm  # the same of a finished run, about three
    python benchmarks/masked_language_modeling.py --runs           # the n-grams alone
    python benchmarks/masked_language_modeling.py --speed          # what decoding only hidden bytes saves, in a minute
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
import transformers
from byte_ngrams import MAX_ORDER, NgramModel, hidden_bytes

from perceiver_io.data import Splits
from perceiver_io.running import parse_recipe, read_recipe_file
from perceiver_io.running.batches import SeededBatches, dealt_batches
from perceiver_io.running.building import build
from perceiver_io.running.run_folder import RunFolder
from perceiver_io.running.runner import train
from perceiver_io.running.task import Batch, Collate, Setup
from perceiver_io.tasks.masked_language_modeling import masking
from perceiver_io.tasks.masked_language_modeling import task as tasks
from perceiver_io.tasks.masked_language_modeling.model import IGNORED
from perceiver_io.tasks.masked_language_modeling.recipe import MaskedLanguageModelingRecipe as Recipe

TASK = tasks.MaskedLanguageModelingTask()
RECIPE = Path(tasks.__file__).parent / "recipes" / "stdlib.yaml"
REACH = 5  # bytes of an n-gram's context on one side, at most
# What may differ between the runs of one table. All else decides what is learned from, or what is hidden.
OF_ONE_RUN = {"seed", "output_dir", "overwrite", "resume", "num_threads", "device", "num_workers"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one model reached on the test texts of a run.

    Attributes:
        bits: Mean of a hidden byte.
        accuracy: Share of the hidden bytes that is guessed.
        parameters: Numbers that the model consists of.
        seconds: Time of training.
    """

    bits: float
    accuracy: float
    parameters: int
    seconds: float


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    """Returns the recipe with some values, those of the file where they say nothing."""
    recipe = parse_recipe(Recipe, values={**read_recipe_file(RECIPE, task=TASK.name), **values})
    assert isinstance(recipe, Recipe)
    return recipe


def recipe_of_run(folder: Path) -> Recipe:
    """Returns the recipe of a finished run."""
    values = RunFolder(folder).recipe()
    if (task := values.pop("task", TASK.name)) != TASK.name:
        raise ValueError(f"{folder} is a run of the task {task}, expected {TASK.name}.")
    recipe = parse_recipe(Recipe, values=values)
    assert isinstance(recipe, Recipe)
    return recipe


def result_of(metrics: Mapping[str, Any]) -> Result:
    """Returns what the metrics of a run say."""
    return Result(
        bits=metrics["test_bits"],
        accuracy=metrics["test_accuracy"],
        parameters=metrics["parameters"],
        seconds=metrics["train_seconds"],
    )


def evaluation_batches(rows: Any, collate: Collate, recipe: Recipe) -> Iterator[Batch]:
    """Yields the batches that the evaluator shows a model: the same bytes are hidden."""
    batches = SeededBatches(rows, collate, seed=recipe.seed)
    for indices, _ in dealt_batches(len(rows), batch_size=recipe.eval_batch_size):
        yield batches.__getitems__(indices)


def ngrams(recipe: Recipe, data: Splits, orders: Sequence[int]) -> dict[int, Result]:
    """Counts, fits and evaluates an n-gram model of each order on the texts of a run."""
    if data.validation is None:
        raise ValueError("The n-grams are fitted on validation texts: the recipe's validation_fraction is 0.")
    # The collator needs a run's recipe and processor, no model.
    setup = Setup(recipe=recipe, data=data, model=None, processor=TASK.processor(recipe, data))
    collate = TASK.collator(setup, train=False)
    assert isinstance(collate, masking.MaskingCollator)
    validation, test = (
        hidden_bytes(evaluation_batches(rows, collate, recipe), first_byte=collate.first_byte, width=REACH)
        for rows in (data.validation, data.test)
    )
    results = {}
    for order in orders:
        start = time.perf_counter()
        model = NgramModel(data.train.documents, order=order, reach=REACH)
        model.fit(validation)
        seconds = time.perf_counter() - start
        bits, hits = model.evaluate(test)
        results[order] = Result(
            bits=float(bits.mean()),
            accuracy=float(hits.mean()),
            parameters=model.num_counts,
            seconds=seconds,
        )
        print(
            f"seed {recipe.seed}: n-grams of up to {order} bytes around a byte, {len(model.contexts)} contexts, "
            f"discounts {', '.join(f'{one:.1f}' for one in model.discounts)}, {len(test):,} hidden bytes in "
            f"{len(data.test):,} test windows: {results[order].bits:.4f} bits",
            flush=True,
        )
    return results


def compare(recipes: Sequence[Recipe], finished: Sequence[Path], orders: Sequence[int]) -> None:
    """Prints the table of n-grams and, in their runs or after training, of models."""
    results: dict[str, list[Result]] = defaultdict(list)
    for recipe in recipes:
        for order, result in ngrams(recipe, TASK.data(recipe), orders).items():
            results[f"n-grams, {order} bytes around"].append(result)
    model = f"`{recipes[0].variant or recipes[0].pretrained}`"
    if finished:
        results[model] = [result_of(RunFolder(folder).metrics()) for folder in finished]
    elif recipes[0].output_dir is not None:
        results[model] = [result_of(train(TASK, recipe)) for recipe in recipes]
    print(f"\nseeds {[recipe.seed for recipe in recipes]}, {torch.get_num_threads()} threads\n")
    print("| | bits per hidden byte | accuracy | parameters | training seconds |")
    print("|---|---:|---:|---:|---:|")
    for name, of_name in results.items():
        bits = [result.bits for result in of_name]
        each = f" ({', '.join(f'{value:.3f}' for value in bits)})" if len(bits) > 1 else ""
        print(
            f"| {name} | {mean(bits):.3f}{each} | {mean(100 * result.accuracy for result in of_name):.1f} % | "
            f"{mean(result.parameters for result in of_name):,.0f} | "
            f"{mean(result.seconds for result in of_name):.0f} |"
        )


def measure_speed(recipe: Recipe, *, repetitions: int) -> None:
    """Prints how long a training step takes when all bytes are decoded, and when only the hidden ones are."""
    data = TASK.data(recipe)
    setup = build(TASK, recipe, data)
    rows = [data.train[index] for index in range(recipe.batch_size)]
    hidden = dict(TASK.collator(setup, train=True)(rows))
    labels_BT = torch.full_like(hidden["input_ids"], IGNORED)
    # Where a text has fewer hidden bytes, its positions go on with 0, which is [CLS].
    labels_BT.scatter_(1, hidden["positions"], hidden["labels"])
    whole = {**hidden, "labels": labels_BT, "positions": None}
    model = setup.model.train()
    with torch.no_grad():
        torch.testing.assert_close(model(**hidden).loss, model(**whole).loss)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    seconds: dict[str, list[float]] = {"hidden": [], "whole": []}
    for repetition in range(-2, repetitions):  # the first two are not counted
        for name, batch in (("hidden", hidden), ("whole", whole)):
            start = time.perf_counter()
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
            if repetition >= 0:
                seconds[name].append(time.perf_counter() - start)
    ratio = median(whole / hidden for whole, hidden in zip(seconds["whole"], seconds["hidden"], strict=True))
    print(
        f"`{recipe.variant}`, batch {recipe.batch_size} x {hidden['input_ids'].shape[1]} tokens, "
        f"{hidden['positions'].shape[1]} of them hidden, {torch.get_num_threads()} threads, median of {repetitions} "
        f"steps: all decoded {1000 * median(seconds['whole']):.1f} ms, the hidden ones "
        f"{1000 * median(seconds['hidden']):.1f} ms: {ratio:.2f} times as fast"
    )


def check_same(recipes: Sequence[Recipe]) -> None:
    """Refuses runs whose figures do not belong in one line."""
    first, *others = (dataclasses.asdict(recipe) for recipe in recipes)
    for other in others:
        if differ := [name for name in first if first[name] != other[name] and name not in OF_ONE_RUN]:
            raise ValueError(f"The runs differ in {', '.join(differ)}, expected only other seeds.")


def main() -> None:
    """Prints the table, or the speed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--runs", type=Path, nargs="*", help="finished runs to read instead of training; none: n-grams alone"
    )
    parser.add_argument("--output-dir", type=Path, help="folder for the runs; by default they are not kept")
    parser.add_argument("--orders", type=int, nargs="*", default=[3, 5, 7], choices=range(1, MAX_ORDER + 1))
    parser.add_argument("--max-steps", type=int, help="steps of a training, to try this out")
    parser.add_argument("--speed", action="store_true", help="measure the speed of a training step instead")
    parser.add_argument(
        "--batch-size", type=int, help="with --speed: texts in a batch; by default the recipe's"
    )
    parser.add_argument("--variant", help="with --speed: another preset")
    parser.add_argument("--repetitions", type=int, default=30, help="with --speed")
    parser.add_argument("--threads", type=int, help="processor threads; by default as many as torch takes")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.speed:
        given = {"batch_size": args.batch_size, "variant": args.variant}
        values = {name: value for name, value in given.items() if value is not None}
        measure_speed(recipe_of(values), repetitions=args.repetitions)
        return
    if args.runs:
        recipes = [recipe_of_run(folder) for folder in args.runs]
        check_same(recipes)
        compare(recipes, args.runs, args.orders)
        return
    values = {} if args.max_steps is None else {"max_steps": args.max_steps}
    with tempfile.TemporaryDirectory() as temporary:
        root = args.output_dir or Path(temporary)
        recipes = [
            recipe_of(
                {
                    **values,
                    "seed": seed,
                    "output_dir": str(root / f"seed-{seed}") if args.runs is None else None,
                }
            )
            for seed in args.seeds
        ]
        compare(recipes, [], args.orders)


if __name__ == "__main__":
    main()
