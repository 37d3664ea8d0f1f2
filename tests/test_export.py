"""`torch.export` and ONNX: one graph for batches and inputs of any size, which gives what the model gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.sized_models import CASES, Case

# Batch sizes and scales that no graph was traced with, which was at 2 and 2.
UNSEEN = [(1, 3), (3, 4), (5, 2)]


def tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_graph_for_all_sizes(case: Callable[[], Case], tmp_path: Path) -> None:
    """As a graph of PyTorch, and as one of ONNX that is made of it."""
    torch.manual_seed(0)
    made = case()
    model = made.build().eval()
    with torch.no_grad():
        program = torch.export.export(
            model, (), kwargs=made.arguments(2, 2), dynamic_shapes=made.varying, strict=False
        )
    graph = program.module()
    torch.onnx.export(program, (), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    for batch, scale in UNSEEN:
        arguments = made.arguments(batch, scale)
        given = [leaf.numpy() for leaf in tensors(arguments)]
        with torch.no_grad():
            expected, of_graph = tensors(model(**arguments)), tensors(graph(**arguments))
        of_onnx = [torch.from_numpy(x) for x in session.run(None, dict(zip(names, given, strict=True)))]
        torch.testing.assert_close(of_graph, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(of_onnx, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit.trace:DeprecationWarning")
def test_a_trace_is_for_the_sizes_of_its_example() -> None:
    case = CASES["text-learned"]()
    model, given = case.build().eval(), case.arguments(2, 2)
    with torch.no_grad():
        traced = torch.jit.trace(model, example_kwarg_inputs=given, strict=False)
        torch.testing.assert_close(traced(**given)["logits"], model(**given).logits)
