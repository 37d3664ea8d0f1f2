"""Two processes that train together on a processor: what they find, and how they go on after an interruption."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from perceiver_io.cli import main
from tests.two_processes import in_two_processes

pytestmark = pytest.mark.slow

NUM_TEST, NUM_VALIDATION = 7, 5
FLAGS = (
    "--variant tiny --image-size 8 --image-channels 1 --model.encoder.num-latents 3 "
    "--model.encoder.latent-channels 16 --num-epochs 2 --learning-rate 1e-3 --device cpu "
    "--report-to none --log-every 1 --num-threads 1"
).split()
# Interrupts itself within the step after so many.
INTERRUPTED = """
import os, signal, sys
from perceiver_io.cli import main
from perceiver_io.running.trainer import Trainer
step = Trainer.training_step
def training_step(self, *args, **kwargs):
    if self.state.global_step == {steps}:
        os.kill(os.getpid(), signal.SIGINT)
    return step(self, *args, **kwargs)
Trainer.training_step = training_step
sys.exit(main(sys.argv[1:]))
"""


def squares(root: Path, num_train: int) -> Path:
    """Dark and bright squares, each set with as many as said."""
    rng = np.random.default_rng(0)
    for split, count in (("train", num_train), ("validation", NUM_VALIDATION), ("test", NUM_TEST)):
        for index in range(count):
            name, level = (("bright", 150), ("dark", 100))[index % 2]
            (root / split / name).mkdir(parents=True, exist_ok=True)
            pixels = np.clip(rng.normal(level, 60, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


def arguments(data: Path, output: Path, *more: str) -> list[str]:
    return [
        *("train", "image-classification", "--dataset", str(data), "--output-dir", str(output)),
        *FLAGS,
        *more,
    ]


def metrics_of(run: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return metrics


# The batches of an epoch are of 8, 8 and 5 images, or of 8, 8 and 1: that one is in both processes. An evaluation is of
# several batches, or of one: then the second process has none that counts.
@pytest.mark.parametrize(("num_train", "eval_batch_size"), [(21, 2), (17, 256)])
def test_two_processes_find_what_one_does(tmp_path: Path, num_train: int, eval_batch_size: int) -> None:
    data = squares(tmp_path / "data", num_train)
    plain = ["--augmentation.preset", "none", "--max-grad-norm", "0.1"]
    plain += ["--eval-batch-size", str(eval_batch_size)]
    in_two_processes(
        ["-m", "perceiver_io.cli"], arguments(data, tmp_path / "two", "--batch-size", "4", *plain)
    )
    assert main(arguments(data, tmp_path / "one", "--batch-size", "8", *plain)) == 0
    one, two = metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two")
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["steps"] == two["steps"] == 6
    for name in ("loss", "grad_norm", "learning_rate", "eval_loss", "eval_accuracy"):
        curves = [
            [(entry["step"], entry[name]) for entry in metrics["history"] if name in entry]
            for metrics in (one, two)
        ]
        assert len(curves[0]) == (2 if name.startswith("eval") else 6)
        tolerance = {"rtol": 1e-4} if name == "grad_norm" else {"rtol": 0, "atol": 1e-5}
        np.testing.assert_allclose(curves[0], curves[1], **tolerance)
    assert two["test_samples"] == NUM_TEST and np.sum(two["confusion"]) == NUM_TEST
    assert two["test_loss"] == pytest.approx(one["test_loss"], abs=1e-5)
    for name in ("test_accuracy", "confusion", "per_class", "best_step"):
        assert one[name] == two[name]


def test_an_interrupted_run_of_two_processes_resumes_within_an_epoch_to_the_same_bits(tmp_path: Path) -> None:
    data = squares(tmp_path / "data", 21)
    settings = [
        "--batch-size",
        "4",
        "--model.encoder.dropout",
        "0.2",
        "--augmentation.preset",
        "digits",
        "--evaluate-every",
        "2",
    ]
    program = ["-m", "perceiver_io.cli"]
    in_two_processes(program, arguments(data, tmp_path / "whole", *settings))
    parts = arguments(data, tmp_path / "parts", *settings)
    # An epoch has three steps.
    in_two_processes(["-c", INTERRUPTED.format(steps=5)], parts, status=130)
    assert not (tmp_path / "parts" / "metrics.json").exists()
    assert "checkpoint-4" in os.listdir(tmp_path / "parts" / "checkpoints")
    in_two_processes(program, [*parts, "--resume"])
    whole, resumed = metrics_of(tmp_path / "whole"), metrics_of(tmp_path / "parts")
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts")]
    for name, expected in weights[0].items():
        np.testing.assert_array_equal(weights[1][name], expected)
    for name in ("test_loss", "test_accuracy", "confusion", "best_step", "best_metric", "steps"):
        assert whole[name] == resumed[name]
    losses = [
        [(entry["step"], entry.get("loss", entry.get("eval_loss"))) for entry in metrics["history"][:-1]]
        for metrics in (whole, resumed)
    ]
    assert losses[0] == losses[1]
