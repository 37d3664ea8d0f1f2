"""One graph of each class for batches of any size: exported, and traced by torch.compile without a break."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from tests.clients.cases import CASES, batch, model

# Tracing takes long, and tests/test_compile.py has models of most kinds: these are the others.
COMPILED = ["causal-language-modeling", "masked-autoencoding"]

# What is drawn or looked at by value cannot be in a graph: the loss of these is not, their outputs are.
LOSS = {"labels", "hidden"}


def inputs(name: str, count: int) -> dict[str, Any]:
    given = {key: value for key, value in batch(name, count).items() if key not in LOSS}
    return given | ({"return_loss": False} if name == "multimodal-autoencoding" else {})


def varying(given: Any) -> Any:
    if isinstance(given, dict):
        return {key: varying(value) for key, value in given.items()}
    return {0: Dim.DYNAMIC} if isinstance(given, Tensor) else None


def tensors(found: Any) -> list[Tensor]:
    return list(found.values()) if isinstance(found, dict) else [found]


def check_same(graph: Any, net: Any, name: str) -> None:
    for count in (3, 5):
        given = inputs(name, count)
        found, expected = graph(**given), net(**given)
        for ours, theirs in zip(
            tensors(found[CASES[name].output]), tensors(expected[CASES[name].output]), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_exported(name: str) -> None:
    net, example = model(name), inputs(name, 3)
    with torch.no_grad():
        program = torch.export.export(net, (), kwargs=example, dynamic_shapes=varying(example))
        graph = program.module()
        check_same(graph, net, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_compiled(name: str) -> None:
    net = model(name)
    torch.compiler.reset()
    graph = torch.compile(net, backend="eager", dynamic=True, fullgraph=name != "masked-autoencoding")
    with torch.no_grad():
        check_same(graph, net, name)
