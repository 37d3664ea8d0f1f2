"""Small folders of models: what the cases are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from published.test_krasserm import write as write_krasserm_io
from published.theirs import CASES
from transformers import PreTrainedModel

import perceiver_io as pio
from perceiver_io import PerceiverIO, PerceiverIOConfig
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.tasks import causal_language_modeling, image_classification
from perceiver_io.tasks.autoregressive.model import PerceiverARForCausalLM
from perceiver_io.tasks.image_classification import PerceiverIOForImageClassification
from tests.causal.goldens import KRASSERM
from tests.causal.goldens import write_krasserm as write_krasserm_ar

__all__ = ["CONFIG", "INDEX", "OTHERS", "OURS", "WEIGHTS", "make_folder"]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_ENCODER = {
    "num_latents": 3,
    "latent_channels": 8,
    "num_blocks": 1,
    "num_cross_attends": 1,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
}


def _images() -> PerceiverIOForImageClassification:
    config = image_classification.config(
        size=(4, 4), variant="tiny", num_classes=3, image={"num_bands": 2}, encoder=_ENCODER
    )
    return PerceiverIOForImageClassification(config)


def _texts() -> PerceiverIO:
    return PerceiverIO(
        PerceiverIOConfig(
            inputs={
                "text": TextAdapter.Config(vocab_size=11, max_length=9, num_channels=6, features="conv"),
                "image": ImageAdapter.Config(size=(4, 4), position="learned", position_channels=3),
            },
            encoder=pio.EncoderConfig(**_ENCODER),
            outputs={
                "text": pio.DenseDecoder.Config(
                    output_channels=11,
                    grid=(9,),
                    grid_input="text",
                    position="learned",
                    position_channels=6,
                    position_resize="truncate",
                    channel_axis=-1,
                ),
                "age": pio.RegressionDecoder.Config(),
            },
            packing=pio.PackingConfig(mask_probabilities=(("text", 0.5),)),
            shared_attention=pio.SharedAttentionConfig(outputs=("text", "age"), output_channels=6),
        )
    )


def _continued() -> PerceiverARForCausalLM:
    config = causal_language_modeling.config(
        vocab_size=11, max_length=8, encoder={"latent_channels": 8, "num_heads": 2, "num_self_attends": 1}
    )
    return PerceiverARForCausalLM(config)


OURS: dict[str, Callable[[], PreTrainedModel]] = {"images": _images, "texts": _texts, "continued": _continued}
"""Models of ours, which have every kind of part among them."""
OTHERS = ("published", "published-language", "krasserm", "krasserm-ar")
"""Models of transformers and of krasserm."""


def make_folder(name: str, folder: Path) -> Path:
    """Writes a model into an empty folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name in OURS:
            OURS[name]().save_pretrained(folder)
        elif name.startswith("published"):
            CASES["language" if name.endswith("language") else "fourier"].make().save_pretrained(folder)
        else:
            folder.rmdir()
            if name == "krasserm":
                write_krasserm_io("mlm", folder)
            else:
                write_krasserm_ar(next(iter(KRASSERM["models"])), folder)
    return folder
