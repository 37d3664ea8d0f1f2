"""Images drawn of classes, judged by a classifier; bits a value beside how often each pixel has each level.

    python benchmarks/image_generation.py                       # three seeds of the scanned digits
    python benchmarks/image_generation.py --seeds 0 --dataset photos --output-dir runs -- --image-size 16

Both models are trained as their commands come. The classifier, the project's own, is trained on the same split: it has
not seen the test images, and says how many of them it recognises, too. Drawn images are of each class in equal number,
at temperature 1 unless `--temperatures` says otherwise.

The baseline knows how often a value has each level in the training images, in all or in those of the class, and adds to
each count what makes the validation images likeliest. How far a drawn image is from the nearest training image, and a
test image from its own, says whether images are learned by heart.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceiver_io.running.find_task import get_task
from perceiver_io.running.recipe_parsing import parse_recipe
from perceiver_io.running.runner import train
from perceiver_io.tasks.image_generation.task import ImageGenerationTask

Images = tuple[Tensor, Tensor]


def trained(task: Any, run: Path, flags: list[str]) -> dict[str, Any]:
    """Trains a model as the command does, or reads what it reached if it is there."""
    if (run / "metrics.json").is_file():
        found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
        return found
    start = time.process_time()
    metrics = train(task, parse_recipe(task.recipe_class, [*flags, "--output-dir", str(run)]))
    return {**metrics, "cpu_seconds": time.process_time() - start}


def levels_of(rows: Any, processor: Any) -> Images:
    """Levels (N, F, H, W), and classes."""
    found = [rows[index] for index in range(len(rows))]
    return processor.to_levels([row["image"] for row in found]), torch.tensor([row["label"] for row in found])


def bits_of_counts(train: Images, judged: Images, *, num_levels: int, by_class: bool, added: float) -> float:
    """Bits a value of images by the levels that values have in the training images."""
    groups = 1 + int(train[1].max()) if by_class else 1
    hot_NVL = torch.nn.functional.one_hot(train[0].flatten(1), num_levels).double()
    counts_KVL = torch.full((groups, *hot_NVL.shape[1:]), added, dtype=torch.float64)
    counts_KVL.index_add_(0, train[1] if by_class else torch.zeros_like(train[1]), hot_NVL)
    logs_KVL = (counts_KVL / counts_KVL.sum(-1, keepdim=True)).log2()
    of_class = judged[1] if by_class else torch.zeros_like(judged[1])
    return -float(logs_KVL[of_class].gather(2, judged[0].flatten(1)[..., None]).mean())


def baseline(train: Images, validation: Images, test: Images, *, num_levels: int, by_class: bool) -> float:
    """Bits of the test images, with what is added to counts chosen by the validation images."""
    settings: dict[str, Any] = {"num_levels": num_levels, "by_class": by_class}
    choices = [2.0**power for power in range(-8, 3)]
    best = min(choices, key=lambda added: bits_of_counts(train, validation, added=added, **settings))
    return bits_of_counts(train, test, added=best, **settings)


def nearest(images: Tensor, train: Tensor, *, num_levels: int) -> Tensor:
    """Root mean squared difference to the nearest training image, as a part of the range."""
    first, second = (one.flatten(1).double() / (num_levels - 1) for one in (images, train))
    return torch.cdist(first, second).min(1).values / math.sqrt(first.shape[1])


def measured(run: Path, judge_run: Path, args: argparse.Namespace) -> dict[str, Any]:
    """What a run's images are like."""
    task, judging = ImageGenerationTask(), get_task("image-classification")
    loaded, judge = task.load(run, device="cpu"), judging.load(judge_run, device="cpu")
    pixels = loaded.processor.processors["tokens"]
    recipe = parse_recipe(task.recipe_class, values=_settings(run))
    data = task.data(recipe)
    parts = [levels_of(rows, pixels) for rows in (data.train, data.validation, data.test)]
    count = {"num_levels": pixels.num_levels}
    found: dict[str, Any] = {
        "bits": float(loaded.model.bits_per_value(*parts[2]).mean()),
        "bits without the class": float(loaded.model.bits_per_value(parts[2][0]).mean()),
        "bits of counts": baseline(*parts, by_class=False, **count),
        "bits of counts of the class": baseline(*parts, by_class=True, **count),
        "test images to the nearest": float(nearest(parts[2][0], parts[0][0], **count).mean()),
    }
    labels = torch.arange(loaded.model.num_classes).repeat_interleave(args.samples)
    for temperature in args.temperatures:
        generator = torch.Generator().manual_seed(0)
        drawn = loaded.model.generate_images(labels=labels, temperature=temperature, generator=generator)
        with torch.no_grad():
            inputs = judge.processor.preprocess(pixels.to_pil(drawn))["pixel_values"]
            hits = judge.model(inputs).logits.argmax(-1) == labels
        distance = nearest(drawn, parts[0][0], **count)
        found[f"temperature {temperature:g}"] = {
            "recognised": float(hits.float().mean()),
            "of the worst class": float(hits.view(-1, args.samples).float().mean(1).min()),
            "to the nearest": float(distance.mean()),
            "copies": float((distance == 0).double().mean()),
        }
    return found


def _settings(run: Path) -> dict[str, Any]:
    from perceiver_io.running import RunFolder

    return {name: value for name, value in RunFolder(run).recipe().items() if name != "task"}


def main() -> None:
    """Prints a line for each seed, and the means."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=100, help="images drawn of each class")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0])
    parser.add_argument("--output-dir", type=Path, help="where the runs are kept; nowhere if not given")
    parser.add_argument("flags", nargs="*", help="after --: flags of the command")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.output_dir or Path(temporary)
        judge = trained(
            get_task("image-classification"),
            folder / "classifier",
            ["--dataset", args.dataset, "--num-threads", "1"],
        )
        print(f"the classifier recognises {judge['test_accuracy']:.1%} of the test images", flush=True)
        for seed in args.seeds:
            run = folder / f"generation-{seed}"
            metrics = trained(
                ImageGenerationTask(), run, ["--dataset", args.dataset, "--seed", str(seed), *args.flags]
            )
            seconds = {name: metrics[name] for name in ("train_seconds", "cpu_seconds") if name in metrics}
            rows.append({**measured(run, folder / "classifier", args), **seconds})
            print(seed, json.dumps(rows[-1]), flush=True)
    for name, value in rows[0].items():
        for part in value if isinstance(value, dict) else [None]:
            values = [row[name] if part is None else row[name][part] for row in rows if name in row]
            label = name if part is None else f"{name}: {part}"
            print(f"{label}: {statistics.mean(values):.3f} ({', '.join(f'{one:.3f}' for one in values)})")


if __name__ == "__main__":
    main()
