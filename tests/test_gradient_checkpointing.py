"""Gradient checkpointing: the same gradients from fewer saved tensors."""

from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from perceiver_io import ClassificationDecoder, EncoderConfig, PerceiverIO, PerceiverIOConfig
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.query_attention import SharedAttentionConfig
from perceiver_io.tasks.image_classification import PerceiverIOForImageClassification, config


def classifier() -> PerceiverIOForImageClassification:
    torch.manual_seed(0)
    settings = config(
        size=(8, 8),
        num_classes=3,
        variant="tiny",
        encoder={"num_latents": 4, "latent_channels": 16, "num_self_attends_per_block": 4, "dropout": 0.3},
    )
    return PerceiverIOForImageClassification(settings).train()


def run(model: PerceiverIOForImageClassification) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients by name, and the number of values that the forward pass kept for them."""
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    torch.manual_seed(1)
    x = torch.randn(2, 3, 8, 8)
    hooks: AbstractContextManager[None] = saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks:
        loss = model(pixel_values=x, labels=torch.tensor([0, 2])).loss
        kept_by_forward = kept
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return {name: gradient for name, gradient in gradients.items() if gradient is not None}, kept_by_forward


def switch(model: PerceiverIOForImageClassification | PerceiverIO, state: str, *arguments: Any) -> None:
    """Later versions of `transformers` call it activation checkpointing."""
    prefix = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    getattr(model, f"{prefix}_checkpointing_{state}")(
        **{f"{prefix}_checkpointing_kwargs": argument for argument in arguments}
    )


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradients_are_the_same_from_fewer_saved_tensors(use_reentrant: bool) -> None:
    expected, kept = run(classifier())
    model = classifier()
    switch(model, "enable", {"use_reentrant": use_reentrant})
    gradients, kept_checkpointed = run(model)
    assert kept_checkpointed < kept / 2
    torch.testing.assert_close(gradients, expected)

    switch(model, "disable")
    model.zero_grad()
    assert run(model)[1] == kept


def dense() -> PerceiverIO:
    torch.manual_seed(0)
    shared = SharedAttentionConfig(outputs=("audio", "label"), output_channels=4)
    config = PerceiverIOConfig(
        inputs={"image": ImageAdapter.Config(size=(4, 6), num_bands=2)},
        encoder=EncoderConfig(num_latents=4, latent_channels=8, num_self_attends_per_block=1),
        outputs={
            "audio": DenseDecoder.Config(output_channels=1, grid=(5,), num_bands=2, channel_axis=None),
            "flow": DenseDecoder.Config(output_channels=2, grid=(4, 6), num_bands=3),
            "label": ClassificationDecoder.Config(num_classes=3),
        },
        shared_attention=shared,
    )
    return PerceiverIO(config).train()


@pytest.mark.parametrize("chunk_size", [None, 7])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_outputs_and_chunks_that_share_what_they_attend_to_have_the_same_gradients(
    use_reentrant: bool, chunk_size: int | None
) -> None:
    """Queries made of positions alone need no gradient; what they attend to, prepared once, does."""
    image = torch.randn(2, 3, 4, 6)
    gradients = []
    for checkpointed in (False, True):
        model = dense()
        if checkpointed:
            switch(model, "enable", {"use_reentrant": use_reentrant})
        outputs = model.decode(model.encode({"image": image}), chunk_size=chunk_size)
        torch.cat([output.flatten().sin() for output in outputs.values()]).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(gradient is not None for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[1], gradients[0])
