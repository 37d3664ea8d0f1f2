"""Configurations of classifiers of several inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.tasks.classification.presets import preset
from perceiver_io.tasks.modalities.audio import AUDIO
from perceiver_io.tasks.modalities.cloud import CLOUD
from perceiver_io.tasks.modalities.image import IMAGE
from perceiver_io.tasks.modalities.inputs import Inputs
from perceiver_io.tasks.modalities.text import TEXTS
from perceiver_io.tasks.modalities.video import VIDEO

__all__ = ["INPUTS", "config", "input_dropout_of"]

INPUTS = Inputs.of(IMAGE, AUDIO, VIDEO, TEXTS, CLOUD)


def config(
    *,
    inputs: Sequence[str],
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    variant: str = "small",
    settings: Mapping[str, Mapping[str, Any] | None] | None = None,
    adapters: Mapping[str, Mapping[str, Any] | None] | None = None,
    input_dropout: float = 0.0,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
) -> PerceiverIOConfig:
    """Returns the configuration of a classifier of some inputs.

    Args:
        inputs: Which, such as "image" and "audio".
        num_classes: Number of classes; follows from `class_names` if these are given, else 2.
        class_names: Names of the classes, in order.
        variant: "tiny", "small" or "base".
        settings: By input what a recipe says in its section, such as `{"audio": {"sampling_rate": 8000}}`.
        adapters: By input the fields of its adapter's configuration that differ from what follows from these.
        input_dropout: Probability that a training sample loses an input.
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of `ClassificationDecoder.Config` that differ from its defaults.

    Raises:
        ValueError: An input, the variant or a field is unknown, or `num_classes` and `class_names` disagree.
    """
    chosen = INPUTS.chosen(inputs)
    return preset(
        chosen,
        settings=settings or {},
        adapters=adapters,
        variant=variant,
        num_classes=num_classes,
        class_names=class_names,
        packing=input_dropout_of(chosen, input_dropout),
        encoder=encoder,
        decoder=decoder,
        of="multimodal classifier",
    )


def input_dropout_of(inputs: Inputs, probability: float) -> dict[str, Any]:
    """Returns the fields of `PackingConfig` by which each of several inputs is lost with a probability."""
    names = sorted(inputs.modalities)
    if len(names) < 2 or not probability:
        return {}
    return {"input_dropout": tuple((name, probability) for name in names)}
