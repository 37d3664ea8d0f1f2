from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from perceiver_io.running import runner

from . import toy_task


def test_several_gpus_want_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    with pytest.raises(
        ValueError, match=r"There are 3 GPUs, but one process.*torchrun --nproc-per-node 3 -m .*cli"
    ):
        runner.train(toy_task.Votes(), toy_task.recipe(tmp_path / "run", device="auto"))
    assert os.listdir(tmp_path) == []


def test_several_gpus_do_not_matter_on_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    metrics = runner.train(toy_task.Votes(), toy_task.recipe(tmp_path / "run", device="cpu", max_steps=1))
    assert metrics["device"] == "cpu"
