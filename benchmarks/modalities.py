"""Every task that trains on an embedded set, beside two baselines on the same split.

    python benchmarks/modalities.py                       # all, three seeds: well over an hour
    python benchmarks/modalities.py audio-classification --seeds 0

Each Perceiver is trained by its task's recipe as it comes, as `perceiver-io train TASK --dataset SET` does. The simple
baselines are fitted on the raw input, on mel pictures, on counts; the small network is of the modality's own kind. All
of them learn from the validation rows too, which choose nothing of them, and are judged by the same test rows. Where
each point of a sample has a class, a simple baseline gets a row for each point, and the mark is the mean intersection
over union.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import pkgutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import baselines
import numpy as np
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from perceiver_io.data import Splits
from perceiver_io.ragged import pad_ragged
from perceiver_io.running.find_task import get_task
from perceiver_io.running.runner import train
from perceiver_io.running.task import TrainableTask


def main() -> None:
    known = {module.TASK: module for module in _modules()}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", nargs="*", help=f"some of {', '.join(known)}; all if none is named")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--without", nargs="*", default=[], choices=["perceiver", "simple", "network"])
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(known):
        parser.error(f"there are no baselines for {sorted(unknown)}, only for {', '.join(known)}")
    rows = []
    for name in options.tasks or known:
        rows.append(_compare(known[name], options.seeds, options.without))
        print(_line(rows[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=2))


def _modules() -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(baselines.__path__):
        yield importlib.import_module(f"baselines.{found.name}")


def _compare(module: ModuleType, seeds: list[int], without: list[str]) -> dict[str, Any]:
    task = get_task(module.TASK)
    assert isinstance(task, TrainableTask)
    row: dict[str, Any] = {"task": module.TASK, "data": module.DATASET, "seeds": seeds}
    regression = getattr(module, "METRIC", "accuracy") == "r2"
    row["metric"] = getattr(module, "METRIC", "accuracy")
    if "perceiver" not in without:
        runs = [_perceiver(task, module.DATASET, seed, row["metric"]) for seed in seeds]
        row["perceiver"] = [run["mark"] for run in runs]
        row["seconds"] = statistics.mean(run["seconds"] for run in runs)
        row["parameters"] = runs[0]["parameters"]
    data = task.data(task.recipe_class(dataset=module.DATASET, seed=0))
    if "simple" not in without:
        row["simple"] = {
            name: _simple(module, features, estimator, data, regression=regression)
            for name, (features, estimator) in module.simple().items()
        }
    if "network" not in without:
        marks, seconds, parameters = zip(
            *(_network(module, data, seed, regression) for seed in seeds), strict=True
        )
        row["network"] = {
            "name": module.NETWORK,
            "marks": list(marks),
            "seconds": statistics.mean(seconds),
            "parameters": parameters[0],
        }
    return row


def _perceiver(task: TrainableTask, dataset: str, seed: int, metric: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        recipe = task.recipe_class(dataset=dataset, seed=seed, output_dir=f"{folder}/run", report_to="none")
        metrics = train(task, recipe)
    return {
        "mark": metrics[f"test_{metric}"],
        "seconds": metrics["train_seconds"],
        "parameters": metrics["parameters"],
    }


def _targets(module: ModuleType, rows: Any, *, regression: bool) -> np.ndarray[Any, Any]:
    """The label of each row; or of each point of all rows, one after the other."""
    if hasattr(module, "labels"):
        return np.concatenate([np.asarray(one) for one in module.labels(rows)])
    labels = [rows[index]["label"] for index in range(len(rows))]
    return np.asarray(labels, dtype=np.float32 if regression else np.int64)


def _simple(
    module: ModuleType, features: Callable[..., Any], estimator: Any, data: Splits, *, regression: bool
) -> float:
    """Fitted on all rows that are not tested on: nothing is chosen by the validation rows."""
    parts = [part for part in (data.train, data.validation) if part is not None]
    rows = [part[index] for part in parts for index in range(len(part))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a solver stopped early
        estimator.fit(features(rows), _targets(module, rows, regression=regression))
    test = [data.test[index] for index in range(len(data.test))]
    truth = _targets(module, test, regression=regression)
    if hasattr(module, "labels"):
        return _mean_iou(torch.as_tensor(estimator.predict(features(test))), torch.as_tensor(truth))
    return float(estimator.score(features(test), truth))


def _mean_iou(predicted: torch.Tensor, truth: torch.Tensor) -> float:
    metric = MulticlassJaccardIndex(int(truth.max()) + 1, ignore_index=-100, validate_args=False)
    return float(metric(predicted, truth))


def _network(module: ModuleType, data: Splits, seed: int, regression: bool) -> tuple[float, float, int]:
    """The last weights after a cosine; the mark on the test rows, seconds of training, parameters."""
    parts = [part for part in (data.train, data.validation) if part is not None]
    rows = [part[index] for part in parts for index in range(len(part))]
    test = [data.test[index] for index in range(len(data.test))]
    torch.manual_seed(seed)
    dense = hasattr(module, "labels")
    targets = torch.as_tensor(_targets(module, rows, regression=regression))
    mean, scale = (float(targets.mean()), float(targets.std())) if regression else (0.0, 1.0)
    network = module.network(1 if regression else len(data.class_names))
    steps_an_epoch = math.ceil(len(rows) / 32)
    steps = module.EPOCHS * steps_an_epoch
    optimizer = torch.optim.AdamW(network.parameters(), lr=module.LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, module.LEARNING_RATE, total_steps=steps, pct_start=0.05
    )
    start = time.monotonic()
    for _ in range(module.EPOCHS):
        network.train()
        for part in torch.randperm(len(rows)).split(32):
            output = _call(network, module.batch([rows[index] for index in part.tolist()]))
            if regression:
                loss = torch.nn.functional.mse_loss(output[:, 0], (targets[part] - mean) / scale)
            else:
                wanted = _padded(module, [rows[index] for index in part.tolist()]) if dense else targets[part]
                loss = torch.nn.functional.cross_entropy(
                    output, wanted, label_smoothing=0.0 if dense else 0.1
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    seconds = time.monotonic() - start
    network.eval()
    with torch.no_grad():
        outputs = [_call(network, module.batch(test[at : at + 64])) for at in range(0, len(test), 64)]
    truth = torch.as_tensor(_targets(module, test, regression=regression))
    if dense:
        wanted = torch.cat([_padded(module, test[at : at + 64]).flatten() for at in range(0, len(test), 64)])
        found = torch.cat([one.argmax(1).flatten() for one in outputs])
        return _mean_iou(found, wanted), seconds, sum(one.numel() for one in network.parameters())
    output = torch.cat(outputs)
    if regression:
        error = (output[:, 0] * scale + mean - truth).square().mean()
        mark = 1 - float(error / truth.var(correction=0))
    else:
        mark = float((output.argmax(1) == truth).float().mean())
    return mark, seconds, sum(one.numel() for one in network.parameters())


def _padded(module: ModuleType, rows: list[Any]) -> torch.Tensor:
    labels_BP: torch.Tensor = pad_ragged(module.labels(rows), value=-100)[0]
    return labels_BP


def _call(network: torch.nn.Module, batch: Any) -> torch.Tensor:
    output: torch.Tensor = network(*batch) if isinstance(batch, tuple) else network(batch)
    return output


def _line(row: dict[str, Any]) -> str:
    def mark(values: list[float]) -> str:
        mean = statistics.mean(values)
        each = ", ".join(f"{100 * one:.1f}" for one in values)
        return f"{100 * mean:.1f} ({each})"

    parts = [row["task"], row["data"], row["metric"]]
    if "perceiver" in row:
        parts += [mark(row["perceiver"]), f"{row['seconds']:.0f} s", f"{row['parameters']:,}"]
    if "simple" in row:
        parts.append(", ".join(f"{name} {100 * found:.1f}" for name, found in row["simple"].items()))
    if "network" in row:
        network = row["network"]
        parts.append(
            f"{network['name']} {mark(network['marks'])}, {network['seconds']:.0f} s, {network['parameters']:,}"
        )
    return "| " + " | ".join(parts) + " |"


if __name__ == "__main__":
    main()
