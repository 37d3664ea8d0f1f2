"""Small Perceiver ARs of every layer kind, with fresh weights that say something."""

from __future__ import annotations

from typing import Any

import torch

import perceiver_io as pio
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.label import LabelAdapter
from perceiver_io.adapters.pixel_sequence import PixelSequenceAdapter
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.tasks.autoregressive import PerceiverARForCausalLM

VOCABULARY, LENGTH, LATENTS, WIDTH = 11, 20, 6, 16

KINDS: dict[str, dict[str, Any]] = {
    "rotary": {"encoder": {"rotary_fraction": 1.0}},
    "rotary-first": {"encoder": {"rotary_fraction": 0.5, "num_rotary_self_attends": 1}},
    "backwards": {
        "encoder": {"rotary_fraction": 0.5, "rotary_backwards": True, "rotary_wavelengths": "both_ends"}
    },
    "learned": {"tokens": {"position": "learned"}},
    "sinusoidal": {"tokens": {"position": "sinusoidal"}},
    "krasserm": {
        "tokens": {"position": "learned"},
        "encoder": {
            "rotary_fraction": 0.5,
            "latent_keys": "query_norm",
            "biases": "cross_attend_output",
            "num_rotary_self_attends": 1,
        },
        "decoder": {"tied_to": "tokens", "use_layer_norm": False},
    },
    "krasserm-rotary": {"encoder": {"rotary_fraction": 1.0, "latent_keys": "query_norm", "biases": "none"}},
    "projected": {"encoder": {"rotary_fraction": 0.5, "project_latents": True, "activation": "squared_relu"}},
    "pixels": {"pixels": (5, 3)},
    "label": {
        "encoder": {"rotary_fraction": 0.5},
        "conditions": {"label": LabelAdapter.Config(num_classes=3)},
    },
    "picture": {
        "encoder": {"rotary_fraction": 0.5},
        "conditions": {"picture": ImageAdapter.Config(size=(2, 2), image_channels=1, num_bands=2)},
    },
}


def small_model(kind: str, **encoder: Any) -> PerceiverARForCausalLM:
    """A model of a kind, in float64 so that equal means equal."""
    parts = KINDS[kind]
    tokens: Any = TextAdapter.Config(
        **{
            "vocab_size": VOCABULARY,
            "max_length": LENGTH,
            "num_channels": WIDTH,
            "position": "none",
            "counts_real": True,
            **parts.get("tokens", {}),
        }
    )
    if "pixels" in parts:
        tokens = PixelSequenceAdapter.Config(vocab_size=VOCABULARY, size=parts["pixels"], num_channels=WIDTH)
    config = pio.PerceiverIOConfig(
        inputs={"tokens": tokens, **parts.get("conditions", {})},
        encoder=pio.CausalEncoderConfig(
            **{
                "sequence": "tokens",
                "max_length": LENGTH,
                "num_latents": LATENTS,
                "latent_channels": WIDTH,
                "num_self_attends": 2,
                "num_heads": 2,
                "widening_factor": 2,
                **parts.get("encoder", {}),
                **encoder,
            }
        ),
        outputs={"tokens": pio.NextTokenDecoder.Config(vocab_size=VOCABULARY, **parts.get("decoder", {}))},
        packing=pio.PackingConfig(min_padding=0),
    )
    torch.manual_seed(len(kind))
    model = PerceiverARForCausalLM(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embedding" in name or "table" in name or "positions" in name or "padding" in name:
                parameter.normal_()
            elif "norm" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def conditions(kind: str, batch: int) -> dict[str, torch.Tensor] | None:
    if kind == "label":
        return {"label": torch.arange(batch) % 3}
    if kind == "picture":
        generator = torch.Generator().manual_seed(0)
        return {"picture": torch.randn(batch, 1, 2, 2, generator=generator).double()}
    return None


def tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))
