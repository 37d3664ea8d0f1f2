"""Configurations of text classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.classification.presets import PresetFields, preset
from perceiver_io.tasks.modalities.inputs import Inputs
from perceiver_io.tasks.modalities.text import TEXTS
from perceiver_io.tasks.text_classification.model import TEXT

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["INPUTS", "config"]

INPUTS = Inputs.of(TEXTS)


def config(
    *,
    settings: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    **fields: Unpack[PresetFields],
) -> PerceiverIOConfig:
    """Returns the configuration of a text classifier.

    Args:
        settings: Fields of `TextSettings`, such as the longest length.
        text: Fields of the adapter's configuration that differ from what follows from these.
        **fields: Classes, variant, and fields of other parts, as `PresetFields` says.

    Raises:
        ValueError: The variant or a field is unknown, or `num_classes` and `class_names` disagree.
    """
    return preset(INPUTS, settings={TEXT: settings}, adapters={TEXT: text}, of="text classifier", **fields)
