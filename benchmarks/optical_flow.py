"""Optical flow beside no motion, and beside scikit-image's TV-L1 and iterative Lucas-Kanade (ILK).

    python benchmarks/optical_flow.py                         # trains with three seeds, then compares
    python benchmarks/optical_flow.py --runs runs/flow        # compares a run that is there
    python benchmarks/optical_flow.py --seeds 0 -- --max-steps 3000

Ours is the command as it comes, on warped photographs. Judged are 300 pairs of photographs that training does not see,
and the Middlebury pair that scikit-image ships, whose disparity is the true flow: reduced until its median motion is 3
pixels, what the model is trained for, and as it is, where most motion is longer than any that it has seen. Errors are
means over all pixels whose flow is known. The classical methods run with scikit-image's defaults, on grey values.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from skimage.color import rgb2gray
from skimage.registration import optical_flow_ilk, optical_flow_tvl1
from torch import Tensor

from perceiver_io.tasks.optical_flow import OpticalFlowPipeline, flow_metrics
from perceiver_io.tasks.optical_flow.data import warped_photographs
from perceiver_io.tasks.optical_flow.task import OpticalFlowTask

Method = Callable[[Tensor, Tensor], Tensor]
Row = Mapping[str, Tensor]

SIZE = (64, 64)
MEDIAN_MOTION = 3.0


def classical(estimate: Callable[..., Any]) -> Method:
    """What is at a pixel of the first frame is at that pixel + flow in the second, as scikit-image has it, too."""

    def flow(first: Tensor, second: Tensor) -> Tensor:
        frames = [rgb2gray(frame.movedim(0, -1).numpy()) for frame in (first, second)]
        down, right = estimate(*frames)
        return torch.from_numpy(np.stack([right, down])).float()

    return flow


def still(first: Tensor, second: Tensor) -> Tensor:
    return torch.zeros(2, *first.shape[1:])


def stereo_pair(factor: float) -> dict[str, Tensor]:
    """The Middlebury pair at a size; what lies at x in the left image lies at x - disparity in the right one."""
    left, right, disparity = skimage.data.stereo_motorcycle()
    size = [round(factor * side) for side in disparity.shape]
    frames = torch.from_numpy(np.stack([left, right])).movedim(-1, 1).float()
    if factor < 1:
        frames = torch.nn.functional.interpolate(
            frames, size, mode="bilinear", antialias=True, align_corners=False
        )
    moved = torch.from_numpy(np.asarray(disparity, dtype=np.float32))[None, None]
    nearest = torch.nn.functional.interpolate(moved, size, mode="nearest-exact")[0, 0]
    valid = nearest.isfinite() & (nearest > 0)
    right_flow = torch.where(valid, -nearest * size[1] / disparity.shape[1], 0)
    first, second = frames.round().clamp(0, 255).byte()
    return {
        "first": first,
        "second": second,
        "flow": torch.stack([right_flow, torch.zeros_like(right_flow)]),
        "valid": valid,
    }


def median_disparity() -> float:
    disparity = skimage.data.stereo_motorcycle()[2]
    return float(np.median(disparity[np.isfinite(disparity) & (disparity > 0)]))


def judged(method: Method, rows: list[Row]) -> dict[str, float]:
    """Mean end-point error, the share that is off by more than 3 pixels and 5 %, and seconds a pair."""
    start = time.perf_counter()
    flows = [method(row["first"], row["second"]) for row in rows]
    seconds = (time.perf_counter() - start) / len(rows)
    joined = [
        torch.cat([one.flatten(-2) for one in parts], dim=-1)[..., None, :]
        for parts in (flows, [row["flow"] for row in rows], [row["valid"][None] for row in rows])
    ]
    return {**flow_metrics(joined[0], joined[1], joined[2][0]), "seconds": seconds}


def train(run: Path, seed: int, flags: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "perceiver_io.cli", "train", "optical-flow"]
    command += ["--dataset", "warped-photographs", "--output-dir", str(run), "--seed", str(seed), *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, nargs="+", default=[], help="runs to judge; nothing is trained")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pairs", type=int, default=300, help="how many of the held-out warps")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("flags", nargs="*", help="after --: flags of the command")
    args = parser.parse_args()
    test = warped_photographs(SIZE, num_pairs=1).test
    reduced = MEDIAN_MOTION / median_disparity()
    sets: dict[str, list[Row]] = {
        "held-out warps": [test[index] for index in range(min(args.pairs, len(test)))],
        f"stereo pair, reduced to {reduced:.3f}": [stereo_pair(reduced)],
        "stereo pair as it is": [stereo_pair(1.0)],
    }
    found: dict[str, dict[str, Any]] = {name: {} for name in sets}
    methods: dict[str, Method] = {
        "no motion": still,
        "TV-L1": classical(optical_flow_tvl1),
        "ILK": classical(optical_flow_ilk),
    }

    def judge(name: str, method: Method) -> None:
        for of_set, rows in sets.items():
            found[of_set][name] = judged(method, rows)
            print(json.dumps({"set": of_set, "method": name, **found[of_set][name]}), flush=True)
        if args.json:
            args.json.write_text(json.dumps(found, indent=2))

    for name, method in methods.items():
        judge(name, method)
    with tempfile.TemporaryDirectory() as scratch:
        runs = {str(run): run for run in args.runs}
        if not runs:
            for seed in args.seeds:
                run = Path(scratch, f"seed-{seed}")
                metrics = train(run, seed, args.flags)
                print(
                    f"seed {seed}: {metrics['steps']} steps in {metrics['train_seconds']:.0f} s", flush=True
                )
                runs[f"ours, seed {seed}"] = run
        for name, run in runs.items():
            judge(name, OpticalFlowPipeline(OpticalFlowTask().load(run, device="cpu").model, batch_size=16))
    for of_set, by_method in found.items():
        ours = [one["end_point_error"] for name, one in by_method.items() if name not in methods]
        others = ", ".join(f"{name} {by_method[name]['end_point_error']:.3f}" for name in methods)
        each = ", ".join(f"{one:.3f}" for one in ours)
        print(f"{of_set}: ours {statistics.mean(ours):.3f} ({each}), {others}")


if __name__ == "__main__":
    main()
