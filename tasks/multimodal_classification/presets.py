"""Configurations of classifiers of several inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.classification.presets import PresetFields, preset
from perceiver_io.tasks.modalities.audio import AUDIO
from perceiver_io.tasks.modalities.cloud import CLOUD
from perceiver_io.tasks.modalities.image import IMAGE
from perceiver_io.tasks.modalities.inputs import Inputs
from perceiver_io.tasks.modalities.text import TEXTS
from perceiver_io.tasks.modalities.video import VIDEO

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["INPUTS", "config", "input_dropout_of"]

INPUTS = Inputs.of(IMAGE, AUDIO, VIDEO, TEXTS, CLOUD)


def config(
    *,
    inputs: Sequence[str],
    settings: Mapping[str, Mapping[str, Any] | None] | None = None,
    adapters: Mapping[str, Mapping[str, Any] | None] | None = None,
    input_dropout: float = 0.0,
    **fields: Unpack[PresetFields],
) -> PerceiverIOConfig:
    """Returns the configuration of a classifier of some inputs.

    Args:
        inputs: Which, such as "image" and "audio".
        settings: By input what a recipe says in its section, such as `{"audio": {"sampling_rate": 8000}}`.
        adapters: By input the fields of its adapter's configuration that differ from what follows from these.
        input_dropout: Probability that a training sample loses an input.
        **fields: Classes, variant, and fields of other parts, as `PresetFields` says.

    Raises:
        ValueError: An input, the variant or a field is unknown, or `num_classes` and `class_names` disagree.
    """
    chosen = INPUTS.chosen(inputs)
    return preset(
        chosen,
        settings=settings or {},
        adapters=adapters or {},
        packing=input_dropout_of(chosen, input_dropout),
        of="multimodal classifier",
        **fields,
    )


def input_dropout_of(inputs: Inputs, probability: float) -> dict[str, Any]:
    """Returns the fields of `PackingConfig` by which each of several inputs is lost with a probability."""
    names = sorted(inputs.modalities)
    if len(names) < 2 or not probability:
        return {}
    return {"input_dropout": tuple((name, probability) for name in names)}
