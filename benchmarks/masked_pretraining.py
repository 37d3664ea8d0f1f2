"""A classifier with few labels: from scratch, and from masked pre-training on all training samples without labels.

Both are trained alike: the same rows with labels, chosen by the seed, the same steps, the task's own settings, the last
weights. The test set is seen by neither. Run it with nothing else on the machine.

    python benchmarks/masked_pretraining.py
    python benchmarks/masked_pretraining.py --train-fraction 0.02 --pretraining "--num-epochs 200 --mask-ratio 0.6"
    python benchmarks/masked_pretraining.py --task audio-classification --dataset instruments --inputs audio
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from perceiver_io.running.find_task import get_task
from perceiver_io.running.recipe_parsing import parse_recipe
from perceiver_io.running.runner import train

COMMON = ["--validation-fraction", "0", "--num-threads", "1", "--device", "cpu", "--report-to", "none"]


def main() -> None:
    """Prints a row for each seed, and the means."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="image-classification")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--inputs", nargs="+", default=["image"])
    parser.add_argument("--train-fraction", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pretraining", default="", help="further flags of masked-autoencoding")
    parser.add_argument("--classifier", default="", help="further flags of both classifiers")
    parser.add_argument("--output-dir", type=Path, help="where the runs are kept; nowhere if not given")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.output_dir or Path(temporary)
        rows = []
        for seed in args.seeds:
            rows.append(_of_seed(args, seed, folder))
            print(json.dumps(rows[-1]), flush=True)
    print("\n| | from scratch | pre-trained |\n|---|---:|---:|")
    for row in rows:
        print(f"| seed {row['seed']} | {row['scratch']:.1%} | {row['pretrained']:.1%} |")
    scratch, pretrained = (statistics.mean(row[name] for row in rows) for name in ("scratch", "pretrained"))
    print(f"| mean | {scratch:.1%} | {pretrained:.1%} |")


def _of_seed(args: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    data = ["--dataset", args.dataset, "--seed", str(seed), *COMMON]
    few = ["--train-fraction", str(args.train_fraction), *args.classifier.split()]
    masked = _trained(
        "masked-autoencoding",
        [*data, "--inputs", *args.inputs, *args.pretraining.split()],
        folder / f"masked-{seed}",
    )
    start = ["--pretrained", str(folder / f"masked-{seed}")]
    tuned = _trained(args.task, [*data, *few, *start], folder / f"tuned-{seed}")
    scratch = _trained(args.task, [*data, *few], folder / f"scratch-{seed}")
    assert tuned["steps"] == scratch["steps"]
    return {
        "seed": seed,
        "scratch": scratch["test_accuracy"],
        "pretrained": tuned["test_accuracy"],
        "steps": scratch["steps"],
        "masked_r2": [value for name, value in masked.items() if name.endswith("r2")],
        "cpu_seconds": {
            "pretraining": masked["cpu_seconds"],
            "fine_tuning": tuned["cpu_seconds"],
            "scratch": scratch["cpu_seconds"],
        },
    }


def _trained(task: str, flags: list[str], run: Path) -> dict[str, Any]:
    found = get_task(task)
    start = time.process_time()
    recipe = parse_recipe(found.recipe_class, [*flags, "--output-dir", str(run)])
    return {**train(found, recipe), "cpu_seconds": round(time.process_time() - start, 1)}


if __name__ == "__main__":
    main()
