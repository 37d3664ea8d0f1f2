"""Configurations of point cloud classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.classification.presets import preset
from perceiver_io.tasks.modalities.cloud import CLOUD as CLOUDS
from perceiver_io.tasks.modalities.inputs import Inputs
from perceiver_io.tasks.point_cloud_classification.model import CLOUD

__all__ = ["INPUTS", "config"]

INPUTS = Inputs.of(CLOUDS)


def config(
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    variant: str = "small",
    settings: dict[str, Any] | None = None,
    cloud: dict[str, Any] | None = None,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a point cloud classifier.

    Args:
        num_classes: Number of classes; follows from `class_names` if these are given, else 2.
        class_names: Names of the classes, in order.
        variant: "nano", "tiny", "small" or "base".
        settings: Fields of `CloudSettings`: how many points, of which coordinates and features.
        cloud: Fields of the adapter's configuration that differ from what follows from these.
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of `ClassificationDecoder.Config` that differ from its defaults.

    Raises:
        ValueError: The variant or a field is unknown, or `num_classes` and `class_names` disagree.
    """
    return preset(
        INPUTS,
        settings={CLOUD: settings},
        adapters={CLOUD: cloud},
        variant=variant,
        num_classes=num_classes,
        class_names=class_names,
        encoder=encoder,
        decoder=decoder,
        of="point cloud classifier",
    )
