"""Gradient checkpointing: the same gradients from fewer saved tensors."""

from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

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


def switch(model: PerceiverIOForImageClassification, state: str, *arguments: Any) -> None:
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
