"""A small model that has learned scikit-learn's digits, in a few seconds: for what is done to trained models."""

from __future__ import annotations

import copy
from functools import cache

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from perceiver_io.tasks.image_classification import PerceiverIOForImageClassification, config

__all__ = ["Digits", "accuracy", "digits", "trained_on_digits"]

Digits = tuple[Tensor, Tensor]
"""Images (B, 1, 8, 8) in [-1, 1], and their labels (B,)."""

NUM_STEPS, BATCH_SIZE, LEARNING_RATE = 150, 64, 2e-3


@cache
def digits() -> tuple[Digits, Digits]:
    """Those to train on, and 360 held out."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images, labels, test_size=360, stratify=labels, random_state=0)
    train_images, test_images = (
        torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1 for x in split[:2]
    )
    train_labels, test_labels = map(torch.tensor, split[2:])
    return (train_images, train_labels), (test_images, test_labels)


def accuracy(model: PerceiverIOForImageClassification, data: Digits) -> float:
    """The share of images whose digit is told."""
    with torch.no_grad():
        return (model(pixel_values=data[0]).logits.argmax(-1) == data[1]).double().mean().item()


def trained_on_digits() -> PerceiverIOForImageClassification:
    """A copy of the model, which is trained once a process."""
    return copy.deepcopy(_trained())


@cache
def _trained() -> PerceiverIOForImageClassification:
    torch.manual_seed(0)
    settings = config(
        size=(8, 8),
        num_classes=10,
        variant="tiny",
        image={"image_channels": 1},
        encoder={"num_latents": 16, "num_cross_attends": 1, "num_blocks": 1, "num_self_attends_per_block": 2},
    )
    model = PerceiverIOForImageClassification(settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=NUM_STEPS)
    images, labels = digits()[0]
    for _ in range(NUM_STEPS):
        drawn = torch.randint(len(labels), (BATCH_SIZE,))
        loss = model(pixel_values=images[drawn], labels=labels[drawn]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()
