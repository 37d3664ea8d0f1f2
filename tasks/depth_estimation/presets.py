"""Configurations of models that give a number for each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.dense.presets import image_map_config
from perceiver_io.tasks.depth_estimation.model import DEPTH

__all__ = ["config"]


def config(
    *,
    size: tuple[int, int] = (128, 128),
    image_channels: int = 3,
    offset: float = 0.0,
    scale: float = 1.0,
    variant: str = "small",
    image: Mapping[str, Any] | None = None,
    encoder: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a model that gives a number for each pixel.

    Args:
        size: Nominal height and width of images and of the output.
        image_channels: Channels of the images.
        offset: About the mean of the numbers.
        scale: About their deviation.
        variant: "small".
        image: Fields of `ImageAdapter.Config` that differ from the variant's.
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of `DenseDecoder.Config` that differ from the variant's.

    Raises:
        ValueError: The variant or a field is unknown.
    """
    numbers = {"channel_axis": None, "offset": offset, "scale": scale}
    return image_map_config(
        DEPTH,
        size=size,
        image_channels=image_channels,
        output_channels=1,
        variant=variant,
        of="model of depths",
        image=image,
        encoder=encoder,
        decoder={**numbers, **(decoder or {})},
    )
