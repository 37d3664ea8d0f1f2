"""Two processes that train a model, by DDP and by FSDP2, find what one process finds with both batches."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor

import perceiver_io as pio
from tests.clients import cases
from tests.small_models import arguments, model, outputs
from tests.train_small_model import trained
from tests.two_processes import in_two_processes

pytestmark = pytest.mark.slow

CASES = [
    "multimodal/ddp/all",
    "multimodal/ddp/absent",
    "multimodal/ddp/fewer outputs",
    "multimodal/fsdp/all",
    "multimodal/fsdp/absent",
    "multimodal/fsdp by part/all",
    "mlm/fsdp by part/all",  # the tied weight belongs to another part
    "multimodal/fsdp bfloat16/all",
    *(f"{name}/{kind}/all" for name in cases.CASES for kind in ("ddp", "fsdp")),
]

Results = dict[str, tuple[list[float], dict[str, Tensor]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    in_two_processes(["-m", "tests.train_small_model"], [str(folder), *CASES], more_tries=2)
    found: Results = torch.load(folder / "trained.pt")
    return found


@functools.cache
def alone(name: str, inputs: str) -> tuple[list[float], dict[str, Tensor]]:
    return trained(name, "alone", inputs)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_find_what_one_does(case: str, results: Results) -> None:
    name, kind, inputs = case.split("/")
    losses, parameters = alone(name, inputs)
    assert losses[0] != losses[-1]
    tolerance = 0.03 if kind.endswith("bfloat16") else 1e-5
    assert results[case][0] == pytest.approx(losses, rel=tolerance, abs=tolerance)
    if not kind.endswith("bfloat16"):
        torch.testing.assert_close(results[case][1], parameters, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if "/fsdp" in case])
def test_what_is_sharded_is_saved_and_loaded_as_any_other_model(
    case: str, results: Results, folder: Path
) -> None:
    name, *_ = case.split("/")
    loaded = pio.from_pretrained(folder / case)
    assert type(loaded) is type(cases.model(name) if name in cases.CASES else model(name))
    parameters = dict(loaded.named_parameters())
    assert parameters.keys() == results[case][1].keys()
    for path, value in results[case][1].items():
        assert torch.equal(parameters[path], value), path
    with torch.no_grad():
        if name in cases.CASES:
            assert loaded(**cases.batch(name)).loss.isfinite()
        else:
            assert all(value.isfinite().all() for value in outputs(loaded(**arguments(name))).values())
