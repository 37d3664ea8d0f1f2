"""Configurations of audio classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.audio_classification.model import AUDIO
from perceiver_io.tasks.classification.presets import PresetFields, preset
from perceiver_io.tasks.modalities.audio import AUDIO as RECORDINGS
from perceiver_io.tasks.modalities.inputs import Inputs

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["INPUTS", "config"]

INPUTS = Inputs.of(RECORDINGS)


def config(
    *,
    settings: dict[str, Any] | None = None,
    audio: dict[str, Any] | None = None,
    **fields: Unpack[PresetFields],
) -> PerceiverIOConfig:
    """Returns the configuration of an audio classifier.

    Args:
        settings: Fields of `AudioSettings`: raw samples or log-mel frames, their rate, their longest length.
        audio: Fields of the adapter's configuration that differ from what follows from these.
        **fields: Classes, variant, and fields of other parts, as `PresetFields` says.

    Raises:
        ValueError: The variant or a field is unknown, or `num_classes` and `class_names` disagree.
    """
    return preset(
        INPUTS, settings={AUDIO: settings}, adapters={AUDIO: audio}, of="audio classifier", **fields
    )
