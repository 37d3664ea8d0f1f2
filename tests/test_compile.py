"""`torch.compile`: no graph break on a classifier's forward pass, and the same results."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from perceiver_io.tasks.image_classification import PerceiverIOForImageClassification, config

IMAGE: dict[str, dict[str, Any]] = {
    "tiny": {"num_bands": 2},
    "learned": {"feature_channels": 4, "position_channels": 4, "position_projection": 4},
    "conv": {"num_bands": 2, "feature_channels": 4},
}


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def classifier(variant: str) -> PerceiverIOForImageClassification:
    encoder = {
        "num_latents": 3,
        "latent_channels": 8,
        "num_cross_attends": 1,
        "num_blocks": 1,
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2,
    }
    settings = config(size=(8, 8), num_classes=3, variant=variant, image=IMAGE[variant], encoder=encoder)
    return PerceiverIOForImageClassification(settings).eval()


def arguments(masked: bool) -> dict[str, torch.Tensor]:
    values = {"pixel_values": torch.randn(2, 3, 8, 8), "labels": torch.tensor([0, 2])}
    if masked:
        values["pixel_mask"] = torch.ones(2, 8, 8, dtype=torch.bool)
        values["pixel_mask"][0, 4:] = False
    return values


@pytest.mark.parametrize("masked", [False, True])
def test_compiled_is_eager(masked: bool) -> None:
    model, batch = classifier("tiny"), arguments(masked)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected, out = model(**batch), compiled(**batch)
    torch.testing.assert_close(out.logits, expected.logits)
    torch.testing.assert_close(out.loss, expected.loss)
    out.loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    expected.loss.backward()
    torch.testing.assert_close(gradients, [parameter.grad for parameter in model.parameters()])


@pytest.mark.parametrize("variant", ["learned", "conv"])
def test_other_features_trace_whole(variant: str) -> None:
    model, batch = classifier(variant), arguments(masked=True)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("masked", [False, True])
def test_no_graph_breaks(masked: bool) -> None:
    explanation = torch._dynamo.explain(classifier("tiny").train())(**arguments(masked))
    assert explanation.graph_break_count == 0, explanation.break_reasons
    assert explanation.graph_count == 1
