"""What the presets of classifiers have in common: encoders by variant, and how the parts become a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from perceiver_io.byte_array import PackingConfig
from perceiver_io.component import ComponentConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.encoder import EncoderConfig
from perceiver_io.presets import class_labels, laid_over, variant_parts
from perceiver_io.running.model_settings import ModelSettings
from perceiver_io.tasks.modalities.inputs import Inputs
from perceiver_io.vector_decoders import ClassificationDecoder

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ENCODERS", "LABEL", "PresetFields", "classifier_config", "preset"]

LABEL = "label"


def _tiny() -> dict[str, Any]:
    """For a few hundred elements and samples, trained in a minute."""
    return {
        "num_latents": 16,
        "latent_channels": 96,
        "num_cross_attends": 2,
        "num_blocks": 2,
        "num_self_attends_per_block": 1,
        "share_blocks": "none",
        "num_cross_attention_heads": 4,
        "num_self_attention_heads": 4,
        "cross_attention_qk_channels": 96,
        "cross_attention_v_channels": 96,
        "dropout": 0.1,
    }


def _nano() -> dict[str, Any]:
    """For tens of elements, and samples so few that a larger model learns them by heart."""
    return {
        **_tiny(),
        "num_latents": 4,
        "latent_channels": 64,
        "num_cross_attends": 1,
        "num_blocks": 1,
        "cross_attention_qk_channels": 64,
        "cross_attention_v_channels": 64,
        "dropout": 0.2,
    }


def _small() -> dict[str, Any]:
    """For some thousands of elements and samples, trained in minutes on a laptop's processor."""
    return {
        **_tiny(),
        "num_latents": 32,
        "latent_channels": 128,
        "num_self_attends_per_block": 2,
        "cross_attention_qk_channels": 128,
        "cross_attention_v_channels": 128,
    }


def _base() -> dict[str, Any]:
    """For an accelerator: the widths of the Perceiver IO paper's smaller models."""
    return {
        **_small(),
        "num_latents": 256,
        "latent_channels": 512,
        "num_self_attends_per_block": 4,
        "num_cross_attention_heads": 8,
        "num_self_attention_heads": 8,
        "cross_attention_qk_channels": 512,
        "cross_attention_v_channels": 512,
    }


ENCODERS: dict[str, Callable[[], dict[str, Any]]] = {
    "nano": _nano,
    "tiny": _tiny,
    "small": _small,
    "base": _base,
}
"""Fields of `EncoderConfig` by variant."""


def classifier_config(
    inputs: Mapping[str, ComponentConfig],
    *,
    variant: str = "small",
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    encoder: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
    packing: Mapping[str, Any] | None = None,
    of: str = "classifier",
) -> PerceiverIOConfig:
    """Returns the configuration of a classifier of some inputs.

    Args:
        inputs: Configurations of adapters, by input.
        variant: One of `ENCODERS`.
        num_classes: Number of classes; follows from `class_names` if these are given, else 2.
        class_names: Names of the classes, in order.
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of `ClassificationDecoder.Config` that differ from its defaults.
        packing: Fields of `PackingConfig`.
        of: What it classifies, for messages.

    Raises:
        ValueError: The variant or a field is unknown, or `num_classes` and `class_names` disagree.
    """
    num_classes, labels = class_labels(num_classes, class_names, default=2)
    return PerceiverIOConfig(
        inputs=dict(inputs),
        encoder=laid_over(EncoderConfig, variant_parts(ENCODERS, variant, of=of), encoder),
        outputs={LABEL: laid_over(ClassificationDecoder.Config, {"num_classes": num_classes}, decoder)},
        packing=laid_over(PackingConfig, packing) if packing else None,
        id2label=labels,
    )


class PresetFields(TypedDict, total=False):
    """What the presets of all classifiers of modalities take, besides what they take of their inputs.

    Attributes:
        num_classes: Number of classes; follows from `class_names` if these are given, else 2.
        class_names: Names of the classes, in order.
        variant: "nano", "tiny", "small" (the default) or "base".
        encoder: Fields of `EncoderConfig` that differ from the variant's.
        decoder: Fields of `ClassificationDecoder.Config` that differ from its defaults.
    """

    num_classes: int | None
    class_names: Sequence[str] | None
    variant: str
    encoder: Mapping[str, Any] | None
    decoder: Mapping[str, Any] | None


def preset(
    inputs: Inputs,
    *,
    settings: Mapping[str, Mapping[str, Any] | None],
    adapters: Mapping[str, Mapping[str, Any] | None],
    of: str,
    packing: Mapping[str, Any] | None = None,
    **fields: Unpack[PresetFields],
) -> PerceiverIOConfig:
    """Returns the configuration of a classifier of some modalities: what the presets of tasks are.

    Args:
        inputs: The modalities.
        settings: For each what a recipe says in its section, such as its rate; the defaults if None.
        adapters: For each the fields of its adapter's configuration that differ from what follows from `settings`.
        of: As `classifier_config`.
        packing: As `classifier_config`.
        **fields: As `PresetFields` says.

    Raises:
        ValueError: As `classifier_config`; or a setting is unknown or out of range.
    """
    read = {
        name: modality.Settings.from_dict(settings.get(name) or {})
        for name, modality in inputs.modalities.items()
    }
    changes = ModelSettings({"inputs": adapters})
    configs = inputs.adapters(read, inputs.processor(read, []), changes)
    config = classifier_config(configs, of=of, packing=packing, **fields)
    changes.check(config)
    return config
