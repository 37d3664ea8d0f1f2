"""Configurations of models of semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.presets import class_labels
from perceiver_io.tasks.dense.presets import image_map_config
from perceiver_io.tasks.semantic_segmentation.model import CLASSES

__all__ = ["config"]


def config(
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    size: tuple[int, int] = (128, 128),
    image_channels: int = 3,
    variant: str = "small",
    image: Mapping[str, Any] | None = None,
    encoder: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a model of semantic segmentation.

    Args:
        num_classes: Number of classes; follows from `class_names` if these are given, else 2.
        class_names: Names of the classes, in order.
        size: Nominal height and width of images and of the output.
        image_channels: Channels of the images.
        variant: "small".
        image: Fields of `ImageAdapter.Config` that differ from the variant's.
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of `DenseDecoder.Config` that differ from the variant's.

    Raises:
        ValueError: The variant or a field is unknown, or `num_classes` and `class_names` disagree.
    """
    num_classes, labels = class_labels(num_classes, class_names, default=2)
    return image_map_config(
        CLASSES,
        size=size,
        image_channels=image_channels,
        output_channels=num_classes,
        variant=variant,
        of="model of semantic segmentation",
        image=image,
        encoder=encoder,
        decoder=decoder,
        id2label=labels,
    )
