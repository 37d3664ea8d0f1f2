"""Memory of training and of decoding, against the resolution of a dense output.

    python benchmarks/dense_memory.py --plot dense-memory.png

One model of semantic segmentation with 12 classes reads images of 64 x 64 pixels, and gives outputs of 64 x 64 to
1024 x 1024. A training step (four images, forward and backward) decodes 2,048 points, or all of them; an evaluation
decodes all of one image without gradients, in chunks of 256 MiB. Each in a process of its own; memory is the peak of
that process, less what it takes before there is an input. Beside an evaluation stands the size of the output itself.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from perceiver_io.drawn_points import draw_points
from perceiver_io.tasks import semantic_segmentation as ss

SIDES = (64, 128, 256, 512, 1024)
KINDS = {"2,048 points": "some", "all points": "all", "evaluation": "evaluation"}
_LARGEST_WHOLE = 256  # with all points, more than this would take tens of gigabytes
_INPUT, _CLASSES, _BATCH, _POINTS = 64, 12, 4, 2048


def measure(kind: str, side: int) -> dict[str, Any]:
    torch.manual_seed(0)
    decoder = {"upsampling": (side // 16, side // 16), "grid": (side, side)}
    made = ss.config(num_classes=_CLASSES, size=(_INPUT, _INPUT), decoder=decoder)
    model = ss.PerceiverIOForSemanticSegmentation(made)
    before = _peak()
    if kind == "evaluation":
        with torch.inference_mode():
            logits = model.eval()(torch.randn(1, 3, _INPUT, _INPUT)).logits
        assert logits.shape[2:] == (side, side)
        own = logits.numel() * logits.element_size() / 1e9
        return {"gigabytes": _peak() - before, "output": own}
    images = torch.randn(_BATCH, 3, _INPUT, _INPUT)
    points, labels = None, torch.randint(_CLASSES, (_BATCH, side, side))
    if kind == "some":
        points, _ = draw_points(torch.ones(_BATCH, side * side, dtype=torch.bool), _POINTS)
        labels = torch.randint(_CLASSES, points.shape)
    model.train()(images, labels=labels, points=points).loss.backward()
    return {"gigabytes": _peak() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plot", type=Path, help="picture to write")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "SIDE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]))))
        return
    curves: dict[str, dict[int, dict[str, Any]]] = {}
    print("| | side | GB | GB of the output |\n|---|---:|---:|---:|")
    for name, kind in KINDS.items():
        curves[name] = {}
        for side in SIDES:
            if kind == "all" and side > _LARGEST_WHOLE:
                continue
            command = [sys.executable, __file__, "--one", kind, str(side)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = curves[name][side] = json.loads(done.stdout)
            own = f"{found['output']:.3f}" if "output" in found else ""
            print(f"| {name} | {side} | {found['gigabytes']:.3f} | {own} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(curves, indent=2))
    if options.plot:
        _draw(curves, options.plot)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _draw(curves: dict[str, dict[int, dict[str, Any]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    names = {
        "2,048 points": "training step, 2,048 points",
        "all points": "training step, all points",
        "evaluation": "evaluation, all points",
    }
    for name, label in names.items():
        points = curves[name]
        axes.loglog(list(points), [one["gigabytes"] for one in points.values()], "o-", ms=3, label=label)
    own = {side: one["output"] for side, one in curves["evaluation"].items()}
    axes.loglog(list(own), list(own.values()), "k:", lw=1, label="the output itself")
    axes.set_xticks(SIDES, [str(side) for side in SIDES])
    axes.minorticks_off()
    axes.set_xlabel("height and width of the output, in pixels")
    axes.set_title("GB of memory at the peak", loc="left", fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
