"""The six published models, small: every kind of layer, none of the waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_io import PerceiverIO, PerceiverIOConfig, PerceiverIOPreTrainedModel
from perceiver_io.tasks import (
    image_classification,
    masked_language_modeling,
    multimodal_autoencoding,
    optical_flow,
)

__all__ = ["CONFIGS", "arguments", "core", "dense_points", "fourier_config", "model", "outputs"]

ENCODER = {
    "num_latents": 8,
    "latent_channels": 32,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
}


def image_config(variant: str, size: int, image: dict[str, Any], **encoder: Any) -> PerceiverIOConfig:
    return image_classification.config(
        num_classes=10,
        size=(size, size),
        variant=variant,
        image=image,
        encoder=ENCODER | {"num_blocks": 2} | encoder,
    )


def fourier_config(**encoder: Any) -> PerceiverIOConfig:
    return image_config("fourier", 16, {"num_bands": 4}, **encoder)


def mlm_config() -> PerceiverIOConfig:
    return masked_language_modeling.config(
        max_length=32,
        text={"num_channels": 24},
        encoder={
            **ENCODER,
            "latent_channels": 40,
            "num_cross_attention_heads": 4,
            "cross_attention_qk_channels": 16,
            "cross_attention_v_channels": 40,
            "self_attention_qk_channels": 16,
            "self_attention_v_channels": 40,
        },
        decoder={"num_heads": 4, "qk_channels": 16, "v_channels": 24},
    )


def multimodal_config() -> PerceiverIOConfig:
    return multimodal_autoencoding.config(
        size=(2, 16, 16),
        num_samples=128,
        num_classes=7,
        image={"num_bands": 4},
        audio={"num_bands": 6},
        encoder=ENCODER,
        shared_attention={"output_channels": 24},
        label_output={"query_channels": 48},
    )


CONFIGS: dict[str, Callable[[], PerceiverIOConfig]] = {
    "fourier": fourier_config,
    "learned": lambda: image_config(
        "learned", 16, {"feature_channels": 16, "position_channels": 16, "position_projection": 16}
    ),
    "conv": lambda: image_config("conv", 32, {"num_bands": 4}),
    "mlm": mlm_config,
    "flow": lambda: optical_flow.config(size=(12, 16), frames={"num_bands": 4}, encoder=ENCODER),
    "multimodal": multimodal_config,
}


CLASSES: dict[str, type[PerceiverIOPreTrainedModel]] = {
    "mlm": masked_language_modeling.PerceiverIOForMaskedLM,
    "flow": optical_flow.PerceiverIOForOpticalFlow,
    "multimodal": multimodal_autoencoding.PerceiverIOForMultimodalAutoencoding,
}


def model(name: str) -> PerceiverIOPreTrainedModel:
    """The task's model with random weights, biases too, large enough for every part to matter."""
    made = CLASSES.get(name, image_classification.PerceiverIOForImageClassification)(CONFIGS[name]()).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def core(made: nn.Module) -> PerceiverIO:
    """The `PerceiverIO` within a task's model, however it is wrapped."""
    return next(module for module in made.modules() if isinstance(module, PerceiverIO))


def arguments(name: str, *, batch_size: int = 2) -> dict[str, Any]:
    """What the task's model is called with, targets too, so that it has a loss."""
    if name == "mlm":
        ids = torch.randint(6, 262, (batch_size, 20))
        return {
            "input_ids": ids,
            "attention_mask": torch.arange(20).expand(batch_size, -1) < 17,
            "labels": ids,
        }
    if name == "flow":
        return {
            "frames": torch.randn(batch_size, 2, 3, 12, 16),
            "labels": torch.randn(batch_size, 2, 12, 16),
        }
    if name == "multimodal":
        return {
            "image": torch.rand(batch_size, 2, 3, 16, 16),
            "audio": torch.rand(batch_size, 128),
            "label": torch.arange(batch_size) % 7,
        }
    size = 32 if name == "conv" else 16
    return {
        "pixel_values": torch.randn(batch_size, 3, size, size),
        "labels": torch.arange(batch_size) % 10,
    }


def outputs(result: Any) -> dict[str, Tensor]:
    """All outputs of a task's model, by name."""
    found = {name: value for name, value in result.items() if isinstance(value, Tensor)}
    return found | dict(result.get("reconstruction") or {})


def dense_points(made: nn.Module) -> dict[str, Tensor]:
    """Three points of each dense output of one axis or more, as row-major indices."""
    decoders = core(made).decoders.items()
    return {name: torch.tensor([3, 0, 7]) for name, decoder in decoders if decoder.takes_points}
