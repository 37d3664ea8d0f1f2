"""Semantic segmentation beside a small U-Net that is trained for as many seconds, on the same images and masks.

    python benchmarks/segmentation.py                                   # the embedded canvases, three seeds
    python benchmarks/segmentation.py --dataset camvid -- --unknown-classes 11 255

Ours is the command as it comes. The U-Net gets its image size, batch size, augmentation, learning rate and the seconds
that its training took, under a cosine over these; its loss is of all pixels. Both are judged by the whole masks of one
set: those of validation where a folder has some, else the test set. Run it with nothing else on the machine.

With `--resolutions` the trained model also gives its output at half and at twice the size, for the same images; the
masks are brought to that size, too.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from perceiver_io.running import parse_recipe, read_recipe_file
from perceiver_io.tasks.dense.image_maps import resized_map
from perceiver_io.tasks.dense.losses import UNKNOWN, class_loss
from perceiver_io.tasks.semantic_segmentation.task import SemanticSegmentationRecipe, SemanticSegmentationTask

TASK = SemanticSegmentationTask()


class UNet(nn.Module):
    """Ronneberger et al., 2015, with batch norm: three levels below the first, 24 to 192 channels."""

    def __init__(self, image_channels: int, num_classes: int, width: int = 24) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(4)]
        self.down = nn.ModuleList(
            _double(before, after) for before, after in zip([image_channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * after, after, 2, stride=2) for after in reversed(widths[:-1])
        )
        self.join = nn.ModuleList(_double(2 * after, after) for after in reversed(widths[:-1]))
        self.output = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skipped = []
        for level, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            skipped.append(x)
        for up, join, beside in zip(self.up, self.join, reversed(skipped[:-1]), strict=True):
            raised = up(x)
            missing = [beside.shape[axis] - raised.shape[axis] for axis in (3, 2)]
            raised = nn.functional.pad(raised, (0, missing[0], 0, missing[1]))
            x = join(torch.cat([raised, beside], dim=1))
        logits: Tensor = self.output(x)
        return logits


def _double(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()),
        *(nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()),
    )


def train_ours(dataset: str, run: Path, seed: int, flags: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "perceiver_io.cli", "train", "semantic-segmentation"]
    command += ["--dataset", dataset, "--output-dir", str(run), "--seed", str(seed), *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return metrics


class Side:
    """What both sides of a run are trained and judged by."""

    def __init__(self, run: Path) -> None:
        values = read_recipe_file(run / "recipe.yaml", task="semantic-segmentation")
        self.recipe = parse_recipe(SemanticSegmentationRecipe, values=values)
        self.data = TASK.data(self.recipe)
        self.loaded = TASK.load(run, device="cpu")
        self.processor = self.loaded.processor
        self.num_classes = len(self.data.class_names)
        has_own = self.recipe.dataset is not None and Path(self.recipe.dataset, "val").is_dir()
        self.rows = self.data.validation if has_own else self.data.test

    def ours(self, images: Tensor, size: tuple[int, ...]) -> Tensor:
        logits: Tensor = self.loaded.model.eval()(images, grid=size).logits
        return logits

    def marks(self, model: Any, scale: float = 1.0) -> dict[str, float]:
        """Mean IoU and pixel accuracy; `model` takes images and a size, and gives logits."""
        settings: dict[str, Any] = {"num_classes": self.num_classes, "ignore_index": UNKNOWN}
        iou, accuracy = MulticlassJaccardIndex(**settings), MulticlassAccuracy(average="micro", **settings)
        size = tuple(round(scale * self.processor.size[side]) for side in ("height", "width"))
        for start in range(0, len(self.rows), 16):
            rows = [self.rows[index] for index in range(start, min(start + 16, len(self.rows)))]
            images = TASK.collate([{"image": row["image"]} for row in rows], self.processor)["pixel_values"]
            labels = torch.stack([resized_map(row["mask"], size) for row in rows])
            with torch.inference_mode():
                classes = model(images, size).argmax(1)
            iou.update(classes, labels)
            accuracy.update(classes, labels)
        return {"mean_iou": iou.compute().item(), "pixel_accuracy": accuracy.compute().item()}


def train_unet(side: Side, *, seconds: float, seed: int) -> tuple[nn.Module, int]:
    """Trains a U-Net; returns it with the number of its steps."""
    recipe, rows = side.recipe, side.data.train
    vary = TASK.variation(side.processor, recipe)
    torch.manual_seed(seed)
    model = UNet(recipe.image_channels, side.num_classes)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    steps, start, part = 0, time.perf_counter(), 0.0
    while part < 1:
        for indices in torch.randperm(len(rows)).split(recipe.batch_size):
            part = min((time.perf_counter() - start) / seconds, 1.0)
            if part == 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * min(part / 0.05, 0.5 + 0.5 * math.cos(math.pi * part))
            varied = [vary(rows[index]) for index in indices.tolist()]
            batch = TASK.collate(varied, side.processor)
            loss = class_loss(model(batch["pixel_values"]), batch["labels"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    return model.eval(), steps


def _of_unet(unet: nn.Module, images: Tensor, size: tuple[int, ...]) -> Tensor:
    logits: Tensor = unet(images)
    return logits


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="digit-canvases")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--no-unet", action="store_true")
    parser.add_argument(
        "--resolutions", action="store_true", help="also judge ours at half and twice the size"
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("flags", nargs="*", help="after --: flags of the command")
    args = parser.parse_args()
    found = []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            run = Path(scratch, "run")
            metrics = train_ours(args.dataset, run, seed, args.flags)
            side = Side(run)
            one: dict[str, Any] = {
                "seed": seed,
                "seconds": metrics["train_seconds"],
                "steps": metrics["steps"],
            }
            one["parameters"] = metrics["parameters"]
            for scale in (1.0, 0.5, 2.0) if args.resolutions else (1.0,):
                one[f"ours at {scale:g}"] = side.marks(side.ours, scale)
            if not args.no_unet:
                unet, steps = train_unet(side, seconds=metrics["train_seconds"], seed=seed)
                one["unet"] = {**side.marks(partial(_of_unet, unet)), "steps": steps}
                one["unet"]["parameters"] = sum(part.numel() for part in unet.parameters())
            found.append(one)
            print(json.dumps(one), flush=True)
            if args.json:
                args.json.write_text(json.dumps(found, indent=2))
    for name in [name for name, value in found[0].items() if isinstance(value, dict)]:
        for key in ("mean_iou", "pixel_accuracy"):
            values = [one[name][key] for one in found]
            each = ", ".join(f"{value:.3f}" for value in values)
            print(f"{name}: {key} {statistics.mean(values):.3f} ({each})")


if __name__ == "__main__":
    main()
