"""Every parameter takes part in training, whatever a batch lacks and whatever the loss is about."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from perceiver_io import (
    ClassificationDecoder,
    EncoderConfig,
    PackingConfig,
    PerceiverIO,
    PerceiverIOConfig,
    SharedAttentionConfig,
    zero_gradients,
)
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.label import LabelAdapter
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.zero_gradients import with_zero_gradients

INPUTS = {
    "image": torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0)),
    "label": torch.tensor([2, 0]),
    "text": torch.tensor([[1, 2, 3], [4, 5, 6]]),
}


def model(**fields: Any) -> PerceiverIO:
    torch.manual_seed(0)
    return PerceiverIO(
        PerceiverIOConfig(
            inputs={
                "image": ImageAdapter.Config(
                    size=(4, 6), num_bands=2, features="conv1x1", feature_channels=4
                ),
                "label": LabelAdapter.Config(num_classes=3),
                "text": TextAdapter.Config(vocab_size=7, max_length=4, num_channels=5),
            },
            encoder=EncoderConfig(
                num_latents=3, latent_channels=8, num_self_attends_per_block=1, num_self_attention_heads=2
            ),
            outputs={
                "image": DenseDecoder.Config(output_channels=3, grid=(4, 6), num_bands=2),
                "label": ClassificationDecoder.Config(num_classes=3),
                "text": DenseDecoder.Config(
                    output_channels=7, grid=(4,), position="learned", position_channels=5, tied_to="text"
                ),
            },
            packing=PackingConfig(mask_probabilities=(("image", 0.0), ("label", 1.0))),
            shared_attention=SharedAttentionConfig(outputs=("image", "label"), output_channels=4),
            **fields,
        )
    ).train()


@pytest.fixture(autouse=True)
def several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero_gradients, "_in_several_processes", lambda: True)


def without_gradient(perceiver: PerceiverIO) -> list[str]:
    return [name for name, parameter in perceiver.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("outputs", [None, ["image"], ["text"]], ids=str)
@pytest.mark.parametrize("inputs", [["image", "label", "text"], ["image"], ["text"], ["label"]], ids=str)
def test_every_parameter_gets_a_gradient(
    inputs: list[str], outputs: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    perceiver = model()
    given = {name: INPUTS[name] for name in inputs}
    out = perceiver(given, outputs=outputs)
    next(iter(out.outputs.values())).square().sum().backward()
    assert without_gradient(perceiver) == []
    monkeypatch.setattr(zero_gradients, "_in_several_processes", lambda: False)
    plain = model()
    expected = plain(given, outputs=outputs)
    next(iter(expected.outputs.values())).square().sum().backward()
    for name in out.outputs:
        assert torch.equal(out[name], expected[name])
    for (name, found), reference in zip(perceiver.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(
            found.grad, torch.zeros_like(found) if reference.grad is None else reference.grad
        ), name


def test_a_process_alone_leaves_aside_what_a_batch_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimizer with weight decay would change what gets a gradient of zero."""
    monkeypatch.undo()
    perceiver = model()
    perceiver({"image": INPUTS["image"]}, outputs=["label"])["label"].sum().backward()
    assert "adapters.text.embedding.weight" in without_gradient(perceiver)
    assert "decoders.text.output.bias" in without_gradient(perceiver)


def test_encoding_and_decoding_apart_are_no_exception() -> None:
    perceiver = model()
    encoded = perceiver.encode({"image": INPUTS["image"]})
    perceiver.decode(encoded, ["label"])["label"].sum().backward()
    assert without_gradient(perceiver) == []


def test_what_is_left_out_may_hold_anything() -> None:
    perceiver = model()
    with torch.no_grad():
        perceiver.adapters["text"].embedding.weight.fill_(torch.nan)
    perceiver({"image": INPUTS["image"]}, outputs=["label"])["label"].sum().backward()
    for name, parameter in perceiver.named_parameters():
        assert parameter.grad.isfinite().all(), name
    assert not perceiver.adapters["text"].embedding.weight.grad.any()


def test_frozen_parameters_stay_without_gradient() -> None:
    perceiver = model()
    frozen = [
        name for name, _ in perceiver.named_parameters() if name.startswith(("adapters.text", "packer"))
    ]
    for name in frozen:
        perceiver.get_parameter(name).requires_grad_(False)
    perceiver({"image": INPUTS["image"]}, outputs=["label"])["label"].sum().backward()
    assert without_gradient(perceiver) == frozen


def test_nothing_is_done_where_no_gradients_are_recorded() -> None:
    x, parameter = torch.randn(3), torch.nn.Parameter(torch.randn(2))
    assert with_zero_gradients(x, []) is x
    with torch.no_grad():
        assert with_zero_gradients(x, [parameter]) is x
    assert with_zero_gradients(x, [parameter.requires_grad_(False)]) is x


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_gradients_of_the_tensor_itself_pass(mode: str) -> None:
    x, parameter = torch.randn(3, requires_grad=True), torch.nn.Parameter(torch.randn(2))

    def tied(x: torch.Tensor) -> torch.Tensor:
        return with_zero_gradients(x, [parameter]) * 2

    torch._dynamo.reset()
    call = torch.compile(tied, fullgraph=True, backend="aot_eager") if mode == "compiled" else tied
    call(x).sum().backward()
    assert x.grad.tolist() == [2, 2, 2] and parameter.grad.tolist() == [0, 0]
    torch._dynamo.reset()
