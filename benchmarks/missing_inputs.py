"""What a second input is worth, and what its absence costs: digits that are seen and heard.

    python benchmarks/missing_inputs.py            # three seeds: half an hour on two cores

For each seed the task `multimodal-classification` is trained as it comes on the set `seen-and-heard`, and on each of
its inputs alone. The model of both is tested with both, and with either left out; the others with theirs. All on the
same 360 digits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from perceiver_io.running.find_task import get_task
from perceiver_io.running.runner import evaluate, train
from perceiver_io.running.task import TrainableTask

DATASET, INPUTS = "seen-and-heard", ("image", "audio")


def marks(seed: int) -> dict[str, float]:
    """Test accuracies of one seed."""
    task = get_task("multimodal-classification")
    assert isinstance(task, TrainableTask)
    recipe = task.recipe_class(dataset=DATASET, seed=seed, report_to="none")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        both = replace(recipe, output_dir=f"{folder}/both")
        found["both"] = train(task, both)["test_accuracy"]
        for name in INPUTS:
            shown = evaluate(task, f"{folder}/both", recipe=replace(both, inputs=[name]))
            found[f"both, {name} alone shown"] = shown["test_accuracy"]
            alone = replace(recipe, inputs=[name], output_dir=f"{folder}/{name}")
            found[f"{name}, trained alone"] = train(task, alone)["test_accuracy"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    runs = []
    for seed in options.seeds:
        runs.append(marks(seed))
        print(seed, json.dumps(runs[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(runs, indent=2))
    for name in runs[0]:
        values = [run[name] for run in runs]
        print(f"{name}: {statistics.mean(values):.1%} ({', '.join(f'{one:.1%}' for one in values)})")


if __name__ == "__main__":
    main()
