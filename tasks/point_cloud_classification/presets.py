"""Configurations of point cloud classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.classification.presets import PresetFields, preset
from perceiver_io.tasks.modalities.cloud import CLOUD as CLOUDS
from perceiver_io.tasks.modalities.inputs import Inputs
from perceiver_io.tasks.point_cloud_classification.model import CLOUD

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["INPUTS", "config"]

INPUTS = Inputs.of(CLOUDS)


def config(
    *,
    settings: dict[str, Any] | None = None,
    cloud: dict[str, Any] | None = None,
    **fields: Unpack[PresetFields],
) -> PerceiverIOConfig:
    """Returns the configuration of a point cloud classifier.

    Args:
        settings: Fields of `CloudSettings`: how many points, of which coordinates and features.
        cloud: Fields of the adapter's configuration that differ from what follows from these.
        **fields: Classes, variant, and fields of other parts, as `PresetFields` says.

    Raises:
        ValueError: The variant or a field is unknown, or `num_classes` and `class_names` disagree.
    """
    return preset(
        INPUTS, settings={CLOUD: settings}, adapters={CLOUD: cloud}, of="point cloud classifier", **fields
    )
