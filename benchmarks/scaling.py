"""Time and memory of encoding, against the number of elements.

    python benchmarks/scaling.py --plot scaling.png

First three inputs of real size: a minute of sound at 48 kHz, 64 frames of 224 x 224 pixels, 200,000 points. Then raw
sound, video, clouds and feature vectors of 1,000 to 1,000,000 elements. Each is encoded in a process of its own, twice:
the second time counts. The encoder has 256 latents of 512 channels, two cross-attends and eight self-attends. Memory is
the peak of the whole process, less what it takes before there is an input.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import perceiver_io as pio
from perceiver_io.adapters.audio import AudioAdapter
from perceiver_io.adapters.features import FeaturesAdapter
from perceiver_io.adapters.point_cloud import PointCloudAdapter
from perceiver_io.adapters.video import VideoAdapter

LENGTHS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
REAL = {"audio": 180_000, "video": 200_704, "cloud": 200_000}
NAMES = {
    "audio": "a minute of sound at 48 kHz, patches of 16 samples",
    "video": "64 frames of 224 x 224 pixels, patches of 4 x 4",
    "cloud": "200,000 points",
}


def _audio(length: int) -> tuple[pio.ComponentConfig, torch.Tensor]:
    return AudioAdapter.Config(num_samples=16 * length, position_extent="nominal"), torch.randn(
        1, 16 * length
    )


def _video(length: int) -> tuple[pio.ComponentConfig, torch.Tensor]:
    frames = 64 if length == REAL["video"] else 8
    side = 4 * round((length / frames) ** 0.5)
    config = VideoAdapter.Config(size=(frames, side, side), position_extent="nominal")
    return config, torch.rand(1, frames, 3, side, side)


def _cloud(length: int) -> tuple[pio.ComponentConfig, torch.Tensor]:
    return PointCloudAdapter.Config(num_bands=64), torch.rand(1, length, 3) * 2 - 1


def _features(length: int) -> tuple[pio.ComponentConfig, torch.Tensor]:
    return FeaturesAdapter.Config(num_features=256), torch.randn(1, length, 256)


INPUTS: dict[str, Callable[[int], tuple[Any, torch.Tensor]]] = {
    "audio": _audio,
    "video": _video,
    "cloud": _cloud,
    "features": _features,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plot", type=Path, help="picture to write")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--one", nargs=2, metavar=("INPUT", "LENGTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measure(options.one[0], int(options.one[1]))))
        return
    print("| input | elements | seconds | GB |\n|---|---:|---:|---:|")
    real = [{**_in_a_process(name, length), "input": NAMES[name]} for name, length in REAL.items()]
    for found in real:
        print(
            f"| {found['input']} | {found['elements']:,} | {found['seconds']:.2f} | {found['gigabytes']:.2f} |",
            flush=True,
        )
    curves = {}
    for name in INPUTS:
        curves[name] = [_in_a_process(name, length) for length in LENGTHS]
        for found in curves[name]:
            print(
                f"| {name} | {found['elements']:,} | {found['seconds']:.3f} | {found['gigabytes']:.3f} |",
                flush=True,
            )
        if options.json:
            options.json.write_text(json.dumps({"real": real, "curves": curves}, indent=2))
    if options.plot:
        _draw(curves, options.plot)


def _in_a_process(name: str, length: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", name, str(length)]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return found


def _measure(name: str, length: int) -> dict[str, Any]:
    torch.manual_seed(0)
    config, x = INPUTS[name](length)
    encoder = pio.EncoderConfig(
        num_latents=256, latent_channels=512, num_cross_attends=2, num_blocks=2, num_self_attends_per_block=4
    )
    outputs = {"label": pio.ClassificationDecoder.Config(num_classes=10)}
    model = pio.PerceiverIO(
        pio.PerceiverIOConfig(inputs={name: config}, encoder=encoder, outputs=outputs)
    ).eval()
    before = _peak()
    with torch.inference_mode():
        for _ in range(2):
            start = time.perf_counter()
            encoded = model.encode({name: x})
            seconds = time.perf_counter() - start
    elements = encoded.byte_arrays[name].values.shape[1]
    return {
        "elements": elements,
        "seconds": seconds,
        "gigabytes": _peak() - before,
        "whole_gigabytes": _peak(),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _draw(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, key, label in (
        (axes[0], "seconds", "seconds to encode"),
        (axes[1], "gigabytes", "GB of memory at the peak"),
    ):
        for name, points in curves.items():
            axis.loglog(
                [one["elements"] for one in points], [one[key] for one in points], "o-", ms=3, label=name
            )
        last = max((points[-1] for points in curves.values()), key=lambda one: one[key])
        ends = [1e4, last["elements"]]
        axis.loglog(ends, [last[key] * end / last["elements"] for end in ends], "k:", lw=1, label="linear")
        axis.set_xlabel("elements")
        axis.set_title(label, loc="left", fontsize=10)
        axis.grid(color="#dddddd", lw=0.5)
    axes[0].legend(fontsize=8, frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
