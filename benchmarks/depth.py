"""Depths of made-up views beside what a pixel's depth is in the mean of the training views.

    python benchmarks/depth.py                            # three seeds of the embedded set
    python benchmarks/depth.py --seeds 0 --dataset rooms -- --unit 0.001

Ours is the command as it comes. The baseline gives each pixel the mean of what that pixel is in the training set,
whatever the image shows; so it knows how the world mostly looks, and nothing of the view. Both are judged by the mean
absolute error and R2 over all pixels of the test set whose depth is known.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, R2Score

from perceiver_io.running import parse_recipe, read_recipe_file
from perceiver_io.tasks.dense.image_maps import resized_map
from perceiver_io.tasks.depth_estimation.task import DepthEstimationRecipe, DepthEstimationTask


def train(dataset: str, run: Path, seed: int, flags: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "perceiver_io.cli", "train", "depth-estimation", "--dataset", dataset]
    command += ["--output-dir", str(run), "--seed", str(seed), *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return metrics


def mean_map(run: Path) -> dict[str, float]:
    """What the pixelwise mean of the training set of a run reaches on its test set."""
    task = DepthEstimationTask()
    values = read_recipe_file(run / "recipe.yaml", task="depth-estimation")
    data = task.data(parse_recipe(DepthEstimationRecipe, values=values))
    processor = task.load_processor(run)
    size = (processor.size["height"], processor.size["width"])

    def maps(rows: Any) -> Tensor:
        return torch.stack([resized_map(rows[index]["depth"], size) for index in range(len(rows))])

    train_NHW, test_NHW = maps(data.train), maps(data.test)
    mean_HW = train_NHW.nanmean(dim=0)
    predicted_NHW = torch.where(mean_HW.isnan(), train_NHW.nanmean(), mean_HW).expand_as(test_NHW)
    known = ~test_NHW.isnan()
    measures = {"mae": MeanAbsoluteError(), "r2": R2Score()}
    return {
        name: float(metric(predicted_NHW[known].double(), test_NHW[known].double()))
        for name, metric in measures.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="plain")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("flags", nargs="*", help="after --: flags of the command")
    args = parser.parse_args()
    found = []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            run = Path(scratch, "run")
            metrics = train(args.dataset, run, seed, args.flags)
            ours = {name: metrics[f"test_{name}"] for name in ("mae", "r2")}
            found.append({"seconds": metrics["train_seconds"], "ours": ours, "mean map": mean_map(run)})
        print(seed, json.dumps(found[-1]), flush=True)
        if args.json:
            args.json.write_text(json.dumps(found, indent=2))
    for who in ("ours", "mean map"):
        for name in ("mae", "r2"):
            values = [one[who][name] for one in found]
            print(
                f"{who}: {name} {statistics.mean(values):.3f} ({', '.join(f'{one:.3f}' for one in values)})"
            )


if __name__ == "__main__":
    main()
