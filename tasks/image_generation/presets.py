"""Configurations of models that draw images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perceiver_io.adapters.label import LabelAdapter
from perceiver_io.adapters.pixel_sequence import PixelSequenceAdapter
from perceiver_io.adapters.pixel_tokens import PixelTokens
from perceiver_io.component import ComponentConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.presets import class_labels, laid_over, variant_parts
from perceiver_io.tasks.autoregressive.presets import causal_config
from perceiver_io.tasks.image_generation.model import LABEL
from perceiver_io.tasks.image_generation.windows import usual_latents

__all__ = ["VARIANTS", "config"]


def config(
    *,
    size: tuple[int, int] = (8, 8),
    image_channels: int = 1,
    num_levels: int = 256,
    num_special_tokens: int = 1,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    variant: str = "tiny",
    num_latents: int | None = None,
    tokens: Mapping[str, Any] | None = None,
    label: Mapping[str, Any] | None = None,
    encoder: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
    packing: Mapping[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a model that draws images.

    Args:
        size: Height and width.
        image_channels: 1 or 3.
        num_levels: Levels of a channel of a pixel.
        num_special_tokens: How many ids are no levels; see `PixelTokens`.
        num_classes: Classes that images may be asked for of; none if None, or as many as there are names.
        class_names: Their names, in order.
        variant: One of `VARIANTS`.
        num_latents: Of how many of the last tokens the model says what follows; if None of all, or of so many that few
            passes see a whole image.
        tokens: Fields of `PixelSequenceAdapter.Config` that differ.
        label: Fields of `LabelAdapter.Config` that differ.
        encoder: Fields of `CausalEncoderConfig` that differ from the variant's.
        decoder: Fields of `NextTokenDecoder.Config` that differ.
        packing: Fields of `PackingConfig` that differ; by default a tenth of the samples loses its class in training,
            so that the model also draws without.

    Raises:
        ValueError: The variant or a field is unknown, or the fields do not fit together.
    """
    of_encoder = {**variant_parts(VARIANTS, variant, of="image generator"), **(encoder or {})}
    vocabulary = PixelTokens(
        size=size,
        num_channels=image_channels,
        num_levels=num_levels,
        num_special_tokens=num_special_tokens,
    )
    of_tokens = {
        "vocab_size": vocabulary.vocab_size,
        "size": (*size, image_channels),
        "num_channels": of_encoder["latent_channels"],
        "num_special_tokens": num_special_tokens,
    }
    count, id2label = class_labels(num_classes, class_names, default=0)
    conditions: dict[str, ComponentConfig] = {}
    if count:
        conditions = {LABEL: laid_over(LabelAdapter.Config, {"num_classes": count}, label)}
        packing = {"input_dropout": [[LABEL, 0.1]], **(packing or {})}
    made = causal_config(
        laid_over(PixelSequenceAdapter.Config, of_tokens, tokens),
        max_length=len(conditions) + vocabulary.length,
        num_latents=usual_latents(vocabulary.length) if num_latents is None else num_latents,
        vocab_size=vocabulary.vocab_size,
        conditions=conditions,
        encoder=of_encoder,
        decoder=None if decoder is None else dict(decoder),
        packing=packing,
    )
    return made.replaced(id2label=id2label)


# Rows, columns and channels have positions of their own: none is rotary.
def _tiny() -> dict[str, Any]:
    """For images of a hundred values, of which a thousand are enough; trained in minutes on a laptop's processor."""
    return {"latent_channels": 128, "num_self_attends": 3, "num_heads": 4, "dropout": 0.1}


def _small() -> dict[str, Any]:
    """For images of some thousand values: six million parameters."""
    return {"latent_channels": 256, "num_self_attends": 7, "num_heads": 8, "dropout": 0.1}


def _base() -> dict[str, Any]:
    """For a hundred thousand images or more: fifty million parameters."""
    return {"latent_channels": 512, "num_self_attends": 15, "num_heads": 8, "dropout": 0.1}


VARIANTS: dict[str, Callable[[], dict[str, Any]]] = {"tiny": _tiny, "small": _small, "base": _base}
"""Fields of `CausalEncoderConfig` by variant."""
