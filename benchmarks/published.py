"""The published models: seconds and memory beside `transformers`, with the same random weights.

Each model of `transformers` is made at full size with random weights and saved; a process that loads it with
`transformers` and one that loads it with this package take turns, with equal threads. What is printed: seconds of one
forward pass (the fastest of each process), peak memory of the process, the ratio of both in each turn, and how far the
outputs are apart, as a share of their standard deviation.

The multimodal model's forward pass is the reconstruction of a whole video. `transformers` decodes it in 128 chunks and
encodes the video again for each; only the first few are run, and their time is multiplied.

    python benchmarks/published.py                                     # all six, on the processor: about half an hour
    python benchmarks/published.py --models optical-flow --turns 1
    python benchmarks/published.py --device cuda --dtype bfloat16 --compile
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peers import PEERS, load_ours, load_theirs
from torch import Tensor
from tqdm import tqdm

from perceiver_io.testing import Operations


def main() -> None:
    options = parse()
    if options.worker:
        print(json.dumps(work(options)))
        return
    print(
        f"{options.threads} threads, {options.device}, {options.dtype}, torch {torch.__version__}", flush=True
    )
    rate = None if options.device == "cpu" else matrix_rate(options)
    if rate is not None:
        print(f"matrix products of 8192: {rate / 1e12:.1f} TFLOP/s", flush=True)
    print(
        f"{'model':16}{'batch':>6}{'seconds':>10}{'theirs':>10}{'times faster':>20}"
        f"{'GB':>7}{'theirs':>8}{'share':>7}{'apart':>10}",
        flush=True,
    )
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(0)
            PEERS[name].build().save_pretrained(folder)
            for batch_size in options.batch_sizes or PEERS[name].batch_sizes:
                turns = compare(name, batch_size, folder, options)
                print(row(name, batch_size, turns), flush=True)
                if rate is not None:
                    print(throughput(batch_size, turns, rate), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME")
    parser.add_argument("--batch-sizes", nargs="+", type=int, help="default: 1, and 8 where it takes seconds")
    parser.add_argument("--turns", type=int, default=3, help="processes of each side")
    parser.add_argument("--repeats", type=int, default=3, help="timed forward passes in each process")
    parser.add_argument(
        "--parts", type=int, default=2, help="chunks that transformers' multimodal model is timed on"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--compile", action="store_true", help="compile both sides with torch.compile")
    parser.add_argument("--worker", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(name: str, batch_size: int, folder: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Lets both sides take turns; returns what each turn found."""
    turns = []
    for _ in tqdm(range(options.turns), desc=f"{name} x {batch_size}", disable=None, leave=False):
        turn: dict[str, Any] = {}
        outputs = {}
        for side in ("ours", "theirs"):
            path = Path(folder) / f"{side}.pt"
            command = [sys.executable, __file__, "--worker", side, "--models", name, "--folder", folder]
            command += [
                "--output",
                str(path),
                "--batch-sizes",
                str(batch_size),
                "--repeats",
                str(options.repeats),
            ]
            command += [
                "--threads",
                str(options.threads),
                "--device",
                options.device,
                "--dtype",
                options.dtype,
            ]
            command += ["--parts", str(options.parts)] + ["--compile"] * options.compile
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            turn[side] = json.loads(done.stdout.splitlines()[-1])
            outputs[side] = torch.load(path, weights_only=True)
        turn["apart"] = max(apart(outputs["ours"][key], theirs) for key, theirs in outputs["theirs"].items())
        turns.append(turn)
    return turns


def work(options: argparse.Namespace) -> dict[str, float]:
    """One side's process: loads, runs, times."""
    torch.set_num_threads(options.threads)
    name, batch_size = options.models[0], options.batch_sizes[0]
    peer, dtype = PEERS[name], getattr(torch, options.dtype)
    model: Any = load_ours(options.folder) if options.worker == "ours" else load_theirs(name, options.folder)
    model = model.to(options.device, dtype)
    if options.compile:
        model.compile()
        model.perceiver.compile()
    torch.manual_seed(1)
    inputs = {
        key: x.to(options.device, dtype if x.is_floating_point() else None)
        for key, x in peer.inputs(batch_size).items()
    }
    parts = min(options.parts, peer.num_parts) if options.worker == "theirs" else 1

    def run() -> list[dict[str, Tensor]]:
        if options.worker == "ours":
            return [peer.ours(model, inputs)]
        return list(islice(peer.theirs(model, inputs), parts))

    seconds = []
    with torch.inference_mode():
        for _ in range(options.repeats):  # the fastest counts, so the first may warm up
            start = time.perf_counter()
            found = run()
            if options.device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        operations = 0
        if options.device != "cpu" and not options.compile:  # what is compiled cannot be counted
            with Operations() as counter:
                run()
            operations = counter.total
    torch.save(comparable(found, name, options), options.output)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if options.device != "cpu":
        memory = torch.cuda.max_memory_allocated()
    whole = peer.num_parts / parts if options.worker == "theirs" else 1
    return {"seconds": min(seconds) * whole, "bytes": memory, "operations": operations * whole}


def comparable(found: list[dict[str, Tensor]], name: str, options: argparse.Namespace) -> dict[str, Tensor]:
    """Outputs in one layout; of a video, the pixels and samples of the chunks that both sides have."""
    if name != "multimodal":
        return {key: x.float().cpu() for key, x in found[0].items()}
    joined = {key: torch.cat([part[key] for part in found], dim=1) for key in ("image", "audio")}
    if options.worker == "ours":
        joined["image"] = joined["image"].movedim(2, -1).flatten(1, 3)
    parts = min(options.parts, PEERS[name].num_parts)
    keep = {key: joined[key].shape[1] for key in joined}
    if options.worker == "ours":
        keep = {key: size * parts // PEERS[name].num_parts for key, size in keep.items()}
    return {"label": found[0]["label"].float().cpu()} | {
        key: x[:, : keep[key]].float().cpu() for key, x in joined.items()
    }


def apart(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.std()).item()


def row(name: str, batch_size: int, turns: list[dict[str, Any]]) -> str:
    ours, theirs = (median(turn[side]["seconds"] for turn in turns) for side in ("ours", "theirs"))
    faster = sorted(turn["theirs"]["seconds"] / turn["ours"]["seconds"] for turn in turns)
    memory = [max(turn[side]["bytes"] for turn in turns) / 1e9 for side in ("ours", "theirs")]
    spread = f"{median(faster):.2f} ({faster[0]:.2f}-{faster[-1]:.2f})"
    return (
        f"{name:16}{batch_size:>6}{ours:>10.2f}{theirs:>10.2f}{spread:>20}{memory[0]:>7.2f}{memory[1]:>8.2f}"
        f"{memory[0] / memory[1]:>7.2f}{max(turn['apart'] for turn in turns):>10.1e}"
    )


def throughput(batch_size: int, turns: list[dict[str, Any]], rate: float) -> str:
    """Samples per second on a device, and the share of its matrix rate that the operations make up."""
    parts = []
    for side in ("ours", "theirs"):
        seconds = median(turn[side]["seconds"] for turn in turns)
        share = turns[0][side]["operations"] / seconds / rate
        parts.append(
            f"{side} {batch_size / seconds:.1f} a second" + (f", {share:.0%} of the rate" if share else "")
        )
    return f"{'':22}{'; '.join(parts)}"


def matrix_rate(options: argparse.Namespace) -> float:
    """Operations per second of large matrix products: what the device can do at best."""
    a = torch.randn(8192, 8192, device=options.device, dtype=getattr(torch, options.dtype))
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(10):
        a @ a
    torch.cuda.synchronize()
    return 10 * 2 * 8192**3 / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
