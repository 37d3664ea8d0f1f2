"""`torch.compile`: no graph break on a classifier's forward pass, and the same results."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils import _pytree as pytree

from perceiver_io import ClassificationDecoder, EncoderConfig, PerceiverIO, PerceiverIOConfig
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.byte_array import PackingConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.query_attention import SharedAttentionConfig
from perceiver_io.tasks.image_classification import PerceiverIOForImageClassification, config
from tests.sized_models import CASES

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


def dense() -> PerceiverIO:
    settings = PerceiverIOConfig(
        inputs={"image": ImageAdapter.Config(size=(4, 6), num_bands=2)},
        encoder=EncoderConfig(num_latents=4, latent_channels=8, num_self_attends_per_block=1),
        outputs={
            "audio": DenseDecoder.Config(output_channels=1, grid=(5,), num_bands=2, channel_axis=None),
            "flow": DenseDecoder.Config(
                output_channels=2,
                query_input="image",
                query_input_channels=3,
                num_bands=2,
                max_resolution=(4, 6),
            ),
            "label": ClassificationDecoder.Config(num_classes=3),
            "mask": DenseDecoder.Config(
                output_channels=2, grid=(2, 3), patch_size=(2, 2), position="learned", position_channels=5
            ),
        },
        packing=PackingConfig(mask_probabilities=(("image", 0.5),)),
        shared_attention=SharedAttentionConfig(outputs=("audio", "label"), output_channels=4),
    )
    return PerceiverIO(settings).eval()


def test_dense_outputs_trace_whole() -> None:
    # Products come in another order in a graph for any sizes: float64 tells rounding from error.
    model, image = dense().double(), torch.randn(2, 3, 4, 6).double()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected, out = model({"image": image}), compiled({"image": image})
    torch.testing.assert_close(out.outputs, expected.outputs)
    sum(output.square().sum() for output in out.outputs.values()).backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    sum(output.square().sum() for output in expected.outputs.values()).backward()
    expected_gradients = [parameter.grad for parameter in model.parameters()]
    torch.testing.assert_close(gradients, expected_gradients)


def test_points_trace_whole() -> None:
    model, image = dense(), torch.randn(2, 3, 4, 6)
    points = {
        "audio": torch.tensor([3, 0]),
        "flow": torch.tensor([[0.5, -0.1], [1.0, 1.0]]),
        "label": None,
        "mask": torch.tensor([[1, 2], [0, 1]]),
    }
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        expected, out = model({"image": image}, points=points), compiled({"image": image}, points=points)
    torch.testing.assert_close(out.outputs, expected.outputs)


@pytest.mark.parametrize(
    "name",
    [
        "image-patches",
        "audio-mel",
        "text-learned",
        "cloud-classes",
        "mixture",
        "flow",
        "multimodal",
        "regression",
    ],
)
def test_one_graph_for_all_batches_and_sizes(name: str) -> None:
    made = CASES[name]()
    model, counter = made.build().eval(), CompileCounter()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    with torch.no_grad():
        # The first is of no other size of the model: PyTorch takes equal sizes for one.
        for batch, scale in ((7, 2), (8, 3), (9, 4), (10, 2), (13, 3), (15, 4)):
            given = made.arguments(batch, scale)
            torch.testing.assert_close(
                outputs(compiled(**given)), outputs(model(**given)), rtol=1e-4, atol=1e-4
            )
    assert counter.frame_count == 1


def outputs(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def test_a_batch_of_one_has_a_graph_of_its_own_at_most() -> None:
    made = CASES["bare"]()
    model, counter = made.build().eval(), CompileCounter()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    with torch.no_grad():
        for batch in range(1, 5):
            compiled(**made.arguments(batch, 2))
    assert counter.frame_count <= 2
