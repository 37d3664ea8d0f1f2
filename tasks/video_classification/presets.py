"""Configurations of video classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.classification.presets import preset
from perceiver_io.tasks.modalities.inputs import Inputs
from perceiver_io.tasks.modalities.video import VIDEO as VIDEOS
from perceiver_io.tasks.video_classification.model import VIDEO

__all__ = ["INPUTS", "config"]

INPUTS = Inputs.of(VIDEOS)


def config(
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    variant: str = "small",
    settings: dict[str, Any] | None = None,
    video: dict[str, Any] | None = None,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a video classifier.

    Args:
        num_classes: Number of classes; follows from `class_names` if these are given, else 2.
        class_names: Names of the classes, in order.
        variant: "nano", "tiny", "small" or "base".
        settings: Fields of `VideoSettings`: how many frames of which size, patches or convolved frames.
        video: Fields of the adapter's configuration that differ from what follows from these.
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of `ClassificationDecoder.Config` that differ from its defaults.

    Raises:
        ValueError: The variant or a field is unknown, or `num_classes` and `class_names` disagree.
    """
    return preset(
        INPUTS,
        settings={VIDEO: settings},
        adapters={VIDEO: video},
        variant=variant,
        num_classes=num_classes,
        class_names=class_names,
        encoder=encoder,
        decoder=decoder,
        of="video classifier",
    )
