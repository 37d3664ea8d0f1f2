"""Two processes that train a model, by DDP and by FSDP2, find what one process finds with both batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.clients import cases
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
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("two")
    in_two_processes(["-m", "tests.train_small_model"], [str(folder), *CASES])
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
