"""Configurations of image autoencoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.dense_decoder import DenseDecoder
from perceiver_io.encoder import EncoderConfig
from perceiver_io.presets import laid_over, variant_parts
from perceiver_io.tasks.dense.presets import IMAGE, SMALL_ENCODER

__all__ = ["VARIANTS", "config"]

_Fields = dict[str, Any]


def config(
    *,
    size: tuple[int, int] = (32, 32),
    image_channels: int = 3,
    variant: str = "small",
    image: Mapping[str, Any] | None = None,
    encoder: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of an image autoencoder.

    Args:
        size: Nominal height and width of images.
        image_channels: Channels of the images.
        variant: One of `VARIANTS`.
        image: Fields of `ImageAdapter.Config` that differ from the variant's.
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of `DenseDecoder.Config` that differ from the variant's.

    Raises:
        ValueError: The variant or a field is unknown.
    """
    of_image, of_encoder, of_decoder = variant_parts(VARIANTS, variant, of="image autoencoder")
    if image and image.get("features", of_image["features"]) != of_image["features"]:
        of_image = {"num_bands": of_image["num_bands"]}  # the rest goes with the variant's own features
    sizes = {"size": size, "image_channels": image_channels}
    # Half as fine as the grid: at its Nyquist frequency single rows and columns are told apart, and lines are drawn.
    coarse = tuple(max(2, side // 2) for side in size)
    asked = {"output_channels": image_channels, "grid": size, "max_resolution": coarse}
    return PerceiverIOConfig(
        inputs={IMAGE: laid_over(ImageAdapter.Config, of_image, sizes, image)},
        encoder=laid_over(EncoderConfig, of_encoder, encoder),
        outputs={IMAGE: laid_over(DenseDecoder.Config, of_decoder, asked, decoder)},
    )


def _small() -> tuple[_Fields, _Fields, _Fields]:
    """For images of 8 to 64 pixels, of which a few hundred are enough: 16 latents of 128 channels hold an image."""
    adapter = {"features": "patches", "patch_size": 4, "num_bands": 8}
    encoder = {**SMALL_ENCODER, "num_latents": 16, "num_self_attends_per_block": 2}
    decoder = {
        "num_bands": 12,
        "query_channels": 128,
        "num_heads": 4,
        "qk_channels": 64,
        "widening_factor": 2,
    }
    return adapter, encoder, decoder


VARIANTS: dict[str, Callable[[], tuple[_Fields, _Fields, _Fields]]] = {"small": _small}
"""Presets by name."""
