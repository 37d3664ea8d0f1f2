"""Multimodal autoencoding of the embedded film beside its mean frame, and silence.

    python benchmarks/multimodal_autoencoding.py                       # three seeds
    python benchmarks/multimodal_autoencoding.py --seeds 0 -- --max-steps 600

Ours is the command as it comes. Judged are clips of a part of the film that is not trained on; the mean frame is that
of the training clips of the same class.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MEASURES = (
    "psnr_video",
    "mean_frame_psnr",
    "own_mean_frame_psnr",
    "psnr_audio",
    "silence_psnr",
    "label_accuracy",
)


def train(run: Path, seed: int, flags: list[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "perceiver_io.cli", "train", "multimodal-autoencoding"]
    command += ["--dataset", "big-buck-bunny", "--output-dir", str(run), "--seed", str(seed), *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    metrics = json.loads((run / "metrics.json").read_text())
    return {"seconds": metrics["train_seconds"], **{name: metrics[f"test_{name}"] for name in MEASURES}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("flags", nargs="*", help="after --: flags of the command")
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in args.seeds:
            found[seed] = train(Path(scratch, f"seed-{seed}"), seed, args.flags)
            print(json.dumps({"seed": seed, **found[seed]}), flush=True)
    for name in ("seconds", *MEASURES):
        values = [one[name] for one in found.values()]
        print(f"{name}: mean {statistics.mean(values):.3f} ({', '.join(f'{one:.3f}' for one in values)})")
    gains = [one["psnr_video"] - one["mean_frame_psnr"] for one in found.values()]
    print(f"over the mean frame: {statistics.mean(gains):.2f} dB")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
