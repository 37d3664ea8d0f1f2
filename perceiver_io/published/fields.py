"""The fields of `transformers.PerceiverConfig` that all its classes read alike, in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PerceiverConfig

from perceiver_io.attention import Activation
from perceiver_io.causal.encoder import CausalEncoderConfig
from perceiver_io.config import PerceiverIOConfig
from perceiver_io.encoder import EncoderConfig
from perceiver_io.printable import reason_of

__all__ = [
    "activation",
    "all_fields",
    "check_same",
    "encoder_config",
    "encoder_fields",
    "image_size",
    "label_fields",
    "query_qk_channels",
]

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
_HIDDEN_ACTS: dict[Activation, str] = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
# What changes training, but nothing that a trained model computes.
_TRAINING_ONLY = {
    "dropout",
    "attention_dropout",
    "latent_std",
    "cross_attention_init",
    "cross_attention_query_gain",
    # Only outputs at masked queries depend on it, which nobody reads.
    "query_mask_input",
}


def all_fields(config_json: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all fields of a Perceiver's config.json, with the defaults that `transformers` has for those left out.

    Raises:
        ValueError: A field has a wrong type.
    """
    try:
        config = PerceiverConfig.from_dict(dict(config_json))
    except Exception as error:  # the strict dataclasses of huggingface_hub have errors of their own
        raise ValueError(
            f"The config.json of this Perceiver cannot be used: {reason_of(error):.300}"
        ) from error
    label_query = getattr(config, "_label_trainable_num_channels", 1024)
    return {**config.to_dict(), "id2label": config.id2label, "_label_trainable_num_channels": label_query}


def activation(fields: Mapping[str, Any]) -> Activation:
    """Returns our name of the activation.

    Raises:
        ValueError: It is none of the two that a Perceiver here can have.
    """
    name = fields["hidden_act"]
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"hidden_act is {name!r}; models with the activations {sorted(_ACTIVATIONS)} can be loaded."
        )
    return _ACTIVATIONS[name]


def image_size(fields: Mapping[str, Any]) -> tuple[int, int]:
    """Returns height and width: `transformers` has one number, or a pair."""
    size = fields["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def query_qk_channels(fields: Mapping[str, Any], *, query_channels: int) -> int | None:
    """Returns the width of queries and keys in the cross-attention of a decoder that is not given one.

    Args:
        fields: All fields.
        query_channels: Width of its queries.

    Returns:
        The width; None for that of the latents.

    Raises:
        ValueError: `cross_attention_shape_for_attention` is neither "q" nor "kv".
    """
    shape = fields["cross_attention_shape_for_attention"]
    if shape not in ("q", "kv"):
        raise ValueError(f"cross_attention_shape_for_attention must be 'q' or 'kv', got {shape!r}.")
    return query_channels if shape == "q" else None


def encoder_config(fields: Mapping[str, Any]) -> EncoderConfig:
    """Returns the encoder that `transformers` builds of these fields; all blocks share their weights.

    Raises:
        ValueError: A field has a value that no model here can have.
    """
    qk_channels, v_channels = fields["qk_channels"], fields["v_channels"]
    if qk_channels is None:
        cross_qk_channels = query_qk_channels(fields, query_channels=fields["d_latents"])
    else:
        cross_qk_channels = qk_channels
    return EncoderConfig(
        num_latents=fields["num_latents"],
        latent_channels=fields["d_latents"],
        num_blocks=fields["num_blocks"],
        num_self_attends_per_block=fields["num_self_attends_per_block"],
        share_blocks="all",
        num_cross_attention_heads=fields["num_cross_attention_heads"],
        num_self_attention_heads=fields["num_self_attention_heads"],
        cross_attention_qk_channels=cross_qk_channels,
        cross_attention_v_channels=v_channels,
        self_attention_qk_channels=qk_channels,
        self_attention_v_channels=v_channels,
        cross_attention_widening_factor=fields["cross_attention_widening_factor"],
        self_attention_widening_factor=fields["self_attention_widening_factor"],
        use_query_residual=fields["use_query_residual"],
        activation=activation(fields),
        attention_dropout=fields["attention_probs_dropout_prob"],
        latent_std=fields["initializer_range"],
        cross_attention_init="fan_in",
    )


def encoder_fields(encoder: EncoderConfig | CausalEncoderConfig) -> dict[str, Any]:
    """Returns the fields that say the same of an encoder, as far as `transformers` can have it; see `check_same`.

    Raises:
        ValueError: It is a causal one, or has an activation that `transformers` cannot have.
    """
    if not isinstance(encoder, EncoderConfig):
        raise ValueError("The Perceiver of transformers has no causal encoder.")
    if encoder.activation not in _HIDDEN_ACTS:
        raise ValueError(
            f"The Perceiver of transformers has the activations {sorted(_HIDDEN_ACTS)}, got {encoder.activation!r}."
        )
    return {
        "num_latents": encoder.num_latents,
        "d_latents": encoder.latent_channels,
        "num_blocks": encoder.num_blocks,
        "num_self_attends_per_block": encoder.num_self_attends_per_block,
        "num_cross_attention_heads": encoder.num_cross_attention_heads,
        "num_self_attention_heads": encoder.num_self_attention_heads,
        "qk_channels": encoder.self_attention_qk_channels,
        "v_channels": encoder.self_attention_v_channels,
        "cross_attention_shape_for_attention": (
            "q" if encoder.cross_attention_qk_channels == encoder.latent_channels else "kv"
        ),
        "cross_attention_widening_factor": encoder.cross_attention_widening_factor,
        "self_attention_widening_factor": encoder.self_attention_widening_factor,
        "use_query_residual": encoder.use_query_residual,
        "hidden_act": _HIDDEN_ACTS[encoder.activation],
        "attention_probs_dropout_prob": encoder.attention_dropout,
        "initializer_range": encoder.latent_std,
    }


def label_fields(config: PerceiverIOConfig, *, num_classes: int) -> dict[str, Any]:
    """Returns the fields that name the classes, with made-up names if they have none, as `transformers` makes them."""
    id2label = config.id2label or {index: f"LABEL_{index}" for index in range(num_classes)}
    return {
        "id2label": id2label,
        "label2id": config.label2id or {label: index for index, label in id2label.items()},
    }


def check_same(config: PerceiverIOConfig, class_config: PerceiverIOConfig, *, architecture: str) -> None:
    """Raises an error if a class of `transformers` computes something else than a configuration describes.

    Args:
        config: The configuration of the model that is to be exported, its defaults resolved where they matter.
        class_config: What the class computes with the fields that were made of it.
        architecture: The class, for the message.

    Raises:
        ValueError: They differ in what a trained model computes; it names all differences.
    """
    ours, theirs = dict(_settings(config)), dict(_settings(class_config))
    differences = [
        f"{name}: {ours.get(name)!r} here, {theirs.get(name)!r} there"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
    if differences:
        raise ValueError(
            f"The class {architecture} of transformers computes something else than this model:\n  "
            + "\n  ".join(differences)
        )


def _settings(config: PerceiverIOConfig) -> Iterator[tuple[str, Any]]:
    """All settings that matter, by dotted name."""
    values = config.to_dict()
    encoder = config.encoder
    assert isinstance(encoder, EncoderConfig)  # checked with the fields
    qk_channels = encoder.self_attention_qk_channels or encoder.latent_channels
    values["encoder"] |= {
        "cross_attention_v_channels": encoder.cross_attention_v_channels
        or encoder.cross_attention_qk_channels,
        "self_attention_qk_channels": qk_channels,
        "self_attention_v_channels": encoder.self_attention_v_channels or qk_channels,
    }
    if encoder.num_blocks == 1:
        values["encoder"]["share_blocks"] = "all"
    if encoder.num_cross_attends == 1:
        values["encoder"]["share_cross_attends"] = "none"
    parts = ("inputs", "packing", "encoder", "shared_attention", "outputs")
    yield from _flat({part: values.get(part) for part in parts})


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name not in _TRAINING_ONLY:
            yield f"{prefix}{name}", value
