"""Decoding more and more points from one encoding: seconds and peak memory.

Asks the published multimodal model (random weights) for 10^4, 10^5 and 10^6 points of its video from one
encoding, each number in a process of its own, and prints the seconds and the peak memory of the process above what it
had before it decoded.

    python benchmarks/decoding.py
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

import perceiver_io as pio


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", nargs="+", type=int, default=[10**4, 10**5, 10**6])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options.points[0])))
        return
    print(f"{'points':>9}{'seconds':>10}{'us a point':>12}{'MB more':>10}{'MB in all':>11}", flush=True)
    for count in options.points:
        command = [sys.executable, __file__, "--worker", "--points", str(count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        per_point = found["seconds"] / count * 1e6
        more, peak_now = found["more"] / 1e6, found["peak"] / 1e6
        print(
            f"{count:>9}{found['seconds']:>10.2f}{per_point:>12.1f}{more:>10.0f}{peak_now:>11.0f}", flush=True
        )


def work(num_points: int) -> dict[str, float]:
    torch.manual_seed(0)
    model = pio.PerceiverIO(pio.published_config("multimodal-perceiver")).eval()
    with torch.inference_mode():
        encoded = model.encode({"audio": torch.rand(1, 30720) * 2 - 1})
        model.decode(
            encoded, points={"image": torch.rand(20_000, 3) * 2 - 1}
        )  # a chunk's memory is allocated once
        before = peak()
        points = torch.rand(num_points, 3) * 2 - 1
        start = time.perf_counter()
        decoded = model.decode(encoded, points={"image": points})["image"]
        seconds = time.perf_counter() - start
    assert decoded.shape == (1, num_points, 3)
    return {"seconds": seconds, "more": peak() - before, "peak": peak()}


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
