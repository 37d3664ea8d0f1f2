"""Configurations of models that give a map of an image: of classes, of depths, of anything a pixel has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.encoder import EncoderConfig
from perceiver_io.presets import laid_over, variant_parts

__all__ = ["IMAGE", "IMAGE_MAPS", "SMALL_ENCODER", "SMALL_QUERIES", "SMALL_STEM", "image_map_config"]

IMAGE = "image"

_Fields = dict[str, Any]

SMALL_STEM: _Fields = {
    "features": "conv_stem",
    "feature_channels": 64,
    "num_convolutions": 2,
    "num_residual_convolutions": 4,
    "num_bands": 8,
}
"""Fields of adapters that see 4 x 4 pixels as an element, and what is around them."""

SMALL_ENCODER: _Fields = {
    "num_latents": 32,
    "latent_channels": 128,
    "num_cross_attends": 2,
    "num_blocks": 2,
    "num_self_attends_per_block": 1,
    "share_blocks": "none",
    "num_cross_attention_heads": 4,
    "num_self_attention_heads": 4,
    "cross_attention_qk_channels": 64,
}

SMALL_QUERIES: _Fields = {
    "num_bands": 8,
    "spacing": "steps",
    "num_heads": 4,
    "qk_channels": 64,
    "v_channels": 64,
    "widening_factor": 2,
    "use_query_residual": True,
}
"""Fields of decoders that ask with interpolated elements; "steps" puts an element where its convolutions look."""


def image_map_config(
    output: str,
    *,
    size: tuple[int, int],
    image_channels: int,
    output_channels: int,
    variant: str = "small",
    of: str,
    image: Mapping[str, Any] | None = None,
    encoder: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
    id2label: dict[int, str] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a model that gives a map of an image.

    Each query is one pixel: what the adapter makes of the image around it, and its position. Positions have no
    frequencies above what the training grid can tell, so that other resolutions can be asked for.

    Args:
        output: Name of the output.
        size: Nominal height and width of images, and of the map.
        image_channels: Channels of images.
        output_channels: Values of a pixel.
        variant: One of `IMAGE_MAPS`.
        of: What the model is, for messages.
        image: Fields of `ImageAdapter.Config` that differ from the variant's.
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of `DenseDecoder.Config` that differ from the variant's.
        id2label: Names of classes.

    Raises:
        ValueError: The variant or a field is unknown.
    """
    of_image, of_encoder, of_decoder = variant_parts(IMAGE_MAPS, variant, of=of)
    if image and image.get("features", of_image["features"]) != of_image["features"]:
        of_image = {"num_bands": of_image["num_bands"]}  # the rest goes with the variant's own features
    adapter = laid_over(
        ImageAdapter.Config, of_image, {"size": size, "image_channels": image_channels}, image
    )
    grid = adapter.grid(size)
    if any(side % elements for side, elements in zip(size, grid, strict=True)):
        raise ValueError(
            f"Images of {size[0]}x{size[1]} pixels are {grid[0]}x{grid[1]} elements: choose a size that is a multiple "
            "of an element's."
        )
    with torch.device("meta"):
        content_channels = ImageAdapter(adapter).num_content_channels
    asked = {
        "output_channels": output_channels,
        "grid": size,
        "query_input": IMAGE,
        "query_input_channels": content_channels,
        "upsampling": tuple(side // elements for side, elements in zip(size, grid, strict=True)),
        "max_resolution": grid,
    }
    return PerceiverIOConfig(
        inputs={IMAGE: adapter},
        encoder=laid_over(EncoderConfig, of_encoder, encoder),
        outputs={output: laid_over(DenseDecoder.Config, of_decoder, asked, decoder)},
        id2label=id2label,
    )


def _small() -> tuple[_Fields, _Fields, _Fields]:
    """For images of 48 to 192 pixels, of which a few hundred are enough, trained in minutes on a laptop's processor."""
    stem = {**SMALL_STEM, "feature_channels": 96, "num_residual_convolutions": 6}
    return stem, dict(SMALL_ENCODER), dict(SMALL_QUERIES)


IMAGE_MAPS: dict[str, Callable[[], tuple[_Fields, _Fields, _Fields]]] = {"small": _small}
