"""Two processes that train the published models, by DDP and by FSDP2, find what one process finds with both batches."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from train_small_model import trained

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("train_small_model.py")
CASES = [
    "multimodal/ddp/all",
    "multimodal/ddp/absent",
    "multimodal/ddp/fewer outputs",
    "multimodal/fsdp/all",
    "multimodal/fsdp/absent",
    "multimodal/fsdp by part/all",
    "mlm/fsdp by part/all",  # the tied weight belongs to another part
    "multimodal/fsdp bfloat16/all",
]

Results = dict[str, tuple[list[float], dict[str, Tensor]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), *CASES],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n\n".join(outputs)
    found: Results = torch.load(folder / "trained.pt")
    return found


@pytest.mark.parametrize("case", CASES)
def test_two_processes_find_what_one_does(case: str, results: Results) -> None:
    name, kind, inputs = case.split("/")
    losses, parameters = trained(name, "alone", inputs)
    assert losses[0] != losses[-1]
    tolerance = 0.03 if kind.endswith("bfloat16") else 1e-5
    assert results[case][0] == pytest.approx(losses, rel=tolerance, abs=tolerance)
    if not kind.endswith("bfloat16"):
        torch.testing.assert_close(results[case][1], parameters, atol=1e-5, rtol=1e-5)
