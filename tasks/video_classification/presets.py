"""Configurations of video classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.classification.presets import PresetFields, preset
from perceiver_io.tasks.modalities.inputs import Inputs
from perceiver_io.tasks.modalities.video import VIDEO as VIDEOS
from perceiver_io.tasks.video_classification.model import VIDEO

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["INPUTS", "config"]

INPUTS = Inputs.of(VIDEOS)


def config(
    *,
    settings: dict[str, Any] | None = None,
    video: dict[str, Any] | None = None,
    **fields: Unpack[PresetFields],
) -> PerceiverIOConfig:
    """Returns the configuration of a video classifier.

    Args:
        settings: Fields of `VideoSettings`: how many frames of which size, patches or convolved frames.
        video: Fields of the adapter's configuration that differ from what follows from these.
        **fields: Classes, variant, and fields of other parts, as `PresetFields` says.

    Raises:
        ValueError: The variant or a field is unknown, or `num_classes` and `class_names` disagree.
    """
    return preset(
        INPUTS, settings={VIDEO: settings}, adapters={VIDEO: video}, of="video classifier", **fields
    )
