"""The command without any flag on a few hundred pictures of one's own, beside a small ResNet in the same time.

Draws five sets of at most 320 training and 240 test pictures (`own_pictures_sets.py`), and for each runs

    perceiver-io train image-classification --dataset FOLDER --output-dir RUN

then trains timm's resnet10t for as many seconds as that run trained, with the same image size, batch size, augmentation
and label smoothing, a cosine over these seconds, and the last weights. Prints a table. The test pictures are looked at
once by each. Run it with nothing else on the machine: both sides are given seconds.

    python benchmarks/own_pictures.py                                  # half an hour or more on two cores
    python benchmarks/own_pictures.py --sets shapes --no-resnet -- --variant tiny   # other flags for the command
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import timm
import torch
from own_pictures_sets import SETS, write_set
from torch import nn

from perceiver_io.data import read_labelled
from perceiver_io.running import parse_recipe, read_recipe_file
from perceiver_io.tasks.image_classification.augmentation import ImageCollator
from perceiver_io.tasks.image_classification.data import EMBEDDED, IMAGES
from perceiver_io.tasks.image_classification.recipe import ImageClassificationRecipe
from perceiver_io.tasks.image_classification.task import ImageClassificationTask


def train_ours(dataset: Path, run: Path, flags: list[str]) -> tuple[dict[str, Any], float]:
    """Runs the command; returns its metrics and how long it took, from its start to its end."""
    command = [sys.executable, "-m", "perceiver_io.cli", "train", "image-classification"]
    start = time.perf_counter()
    subprocess.run(
        [*command, "--dataset", str(dataset), "--output-dir", str(run), *flags],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return json.loads((run / "metrics.json").read_text()), time.perf_counter() - start


def train_resnet(run: Path, *, seconds: float, learning_rate: float) -> tuple[float, int, int]:
    """Trains a ResNet on what a run was trained on; returns test accuracy, parameters and steps."""
    values = read_recipe_file(run / "recipe.yaml", task="image-classification")
    recipe = parse_recipe(ImageClassificationRecipe, values=values)
    data = read_labelled(recipe, IMAGES, embedded=EMBEDDED, seed=recipe.seed)
    task = ImageClassificationTask()
    processor = task.processor(recipe, data)
    num_classes = len(data.class_names)
    collate = ImageCollator(processor, recipe.augmentation_settings(), num_classes=num_classes)
    torch.manual_seed(recipe.seed)
    model = timm.create_model("resnet10t", num_classes=num_classes)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    rows, steps, start = list(data.train), 0, time.perf_counter()
    while (part := (time.perf_counter() - start) / seconds) < 1:
        for indices in torch.randperm(len(rows)).split(recipe.batch_size):
            part = min((time.perf_counter() - start) / seconds, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * min(part / 0.05, 0.5 + 0.5 * math.cos(math.pi * part))
            batch = collate([rows[index] for index in indices.tolist()])
            loss = nn.functional.cross_entropy(model(batch["pixel_values"]), batch["labels"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    model.eval()
    batch = task.collate(list(data.test), processor)
    with torch.inference_mode():
        hits = model(batch["pixel_values"]).argmax(-1) == batch["labels"]
    return hits.float().mean().item(), sum(one.numel() for one in model.parameters()), steps


def main() -> None:
    """Trains both on every set and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seed", type=int, default=0, help="of the pictures")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the ResNet")
    parser.add_argument("--no-resnet", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for the pictures and the runs, which stay there")
    parser.add_argument("flags", nargs="*", help="after --: flags of the command")
    args = parser.parse_args()
    print("| set | classes | ours | seconds, all in all | parameters | steps | ResNet | parameters | steps |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        for name in args.sets:
            pictures, run = folder / name, folder / f"run-{name}"
            write_set(name, pictures, seed=args.seed)
            metrics, seconds = train_ours(pictures, run, args.flags)
            line = (
                f"| {name} | {len(metrics['confusion'])} | {metrics['test_accuracy']:.1%} | {seconds:.0f} | "
            )
            line += f"{metrics['parameters']:,} | {metrics['steps']:,} |"
            if not args.no_resnet:
                accuracy, parameters, steps = train_resnet(
                    run, seconds=metrics["train_seconds"], learning_rate=args.learning_rate
                )
                line += f" {accuracy:.1%} | {parameters:,} | {steps:,} |"
            print(line, flush=True)


if __name__ == "__main__":
    main()
