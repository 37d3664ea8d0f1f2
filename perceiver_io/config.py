"""The configuration of a whole model: its inputs, its encoder, its outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from perceiver_io.byte_array import PackingConfig
from perceiver_io.component import ComponentConfig, ConfigT
from perceiver_io.decoder import DecoderConfig
from perceiver_io.encoder import EncoderConfig
from perceiver_io.query_attention import SharedAttentionConfig
from perceiver_io.registry import ADAPTERS, DECODERS, ComponentRegistry

__all__ = ["FORMAT_VERSION", "PerceiverIOConfig"]

FORMAT_VERSION = 1

_BASE_FIELDS = {field.name for field in dataclasses.fields(PreTrainedConfig)}
# What `PreTrainedConfig` writes besides its fields; none of it matters to a Perceiver.
_BASE_EXTRAS = {
    "model_type",
    "output_attentions",
    "_name_or_path",
    "_attn_implementation",
    "_experts_implementation",
}
_PARTS = {"inputs", "encoder", "outputs"}
_OPTIONAL_PARTS = {"packing", "shared_attention"}
_KNOWN_KEYS = _PARTS | _OPTIONAL_PARTS | {"format_version"} | _BASE_FIELDS | _BASE_EXTRAS


class PerceiverIOConfig(PreTrainedConfig):
    """Configuration of a `PerceiverIO` model, for every task.

    Args:
        inputs: Adapter configuration of each input, by the input's name.
        encoder: Settings of the encoder.
        outputs: Decoder configuration of each output, by the output's name.
        packing: How the byte arrays of several inputs are joined; the defaults if None.
        shared_attention: Settings of an attention that several outputs share; if None, each has its own.
        id2label: Class names by index, for classification tasks.
        label2id: Indices by class name; follows from `id2label` if None.
        adapters: Adapter classes by name that are not registered in this process.
        decoders: Decoder classes by name that are not registered in this process.

    Raises:
        ValueError: A component's class is not registered, there is no input or no output, or a part names an input or
            output that is not there (what decoders name is in `DecoderConfig.needs`).
    """

    model_type = "perceiver_io"

    def __init__(
        self,
        *,
        inputs: Mapping[str, ComponentConfig],
        encoder: EncoderConfig,
        outputs: Mapping[str, DecoderConfig],
        packing: PackingConfig | None = None,
        shared_attention: SharedAttentionConfig | None = None,
        id2label: Mapping[int, str] | None = None,
        label2id: Mapping[str, int] | None = None,
        adapters: Mapping[str, type] | None = None,
        decoders: Mapping[str, type] | None = None,
    ) -> None:
        if not inputs or not outputs:
            raise ValueError(
                f"A model needs at least one input and one output, got the inputs {sorted(inputs)} and the outputs "
                f"{sorted(outputs)}."
            )
        for name in (*inputs, *outputs):
            if not name.isidentifier():
                raise ValueError(f"Inputs and outputs are named by Python identifiers, got {name!r}.")
            if hasattr(nn.ModuleDict, name):
                raise ValueError(f"The name {name!r} is taken by torch.nn.ModuleDict: choose another.")
        if not isinstance(encoder, EncoderConfig):
            raise ValueError(f"encoder must be an EncoderConfig, got {type(encoder).__name__}.")
        self.format_version = FORMAT_VERSION
        self._adapters = ADAPTERS.extended(adapters or {})
        self._decoders = DECODERS.extended(decoders or {})
        self.inputs = {name: inputs[name] for name in sorted(inputs)}
        self.encoder = encoder
        self.outputs = {name: outputs[name] for name in sorted(outputs)}
        self.packing = PackingConfig() if packing is None else packing
        self.shared_attention = shared_attention
        for adapter in self.inputs.values():
            self._adapters.name_of(adapter)
        for decoder in self.outputs.values():
            self._decoders.name_of(decoder)
        self._check_names()
        for field in dataclasses.fields(PreTrainedConfig):
            setattr(self, field.name, field.default)
        self.id2label = (
            None if id2label is None else {int(index): str(label) for index, label in id2label.items()}
        )
        if label2id is None and self.id2label is not None:
            label2id = {label: index for index, label in self.id2label.items()}
        self.label2id = None if label2id is None else dict(label2id)
        self.__post_init__()
        if id2label is None:  # the base class makes up two labels
            self.id2label = self.label2id = None

    def _check_names(self) -> None:
        named: dict[str, tuple[set[str], Mapping[str, ComponentConfig]]] = {
            "packing.mask_probabilities": (
                {name for name, _ in self.packing.mask_probabilities},
                self.inputs,
            ),
        }
        if self.shared_attention is not None:
            named["shared_attention.outputs"] = (set(self.shared_attention.outputs), self.outputs)
        for output, part in self.outputs.items():
            named[f"outputs[{output!r}]"] = (part.needs().names, self.inputs)
        for where, (names, known) in named.items():
            if unknown := sorted(names - set(known)):
                raise ValueError(f"{where} names {unknown}, but there are only {list(known)}.")

    def adapter_class(self, name: str) -> type:
        """Returns the adapter class of an input."""
        return self._adapters.class_of(self.inputs[name])

    def decoder_class(self, name: str) -> type:
        """Returns the decoder class of an output."""
        return self._decoders.class_of(self.outputs[name])

    def replaced(self, **changes: Any) -> PerceiverIOConfig:
        """Returns a configuration with other parts or other class names.

        Args:
            **changes: Arguments of the constructor.
        """
        kept = ("inputs", "encoder", "outputs", "packing", "shared_attention", "id2label")
        arguments = {name: getattr(self, name) for name in kept}
        classes = {"adapters": self._adapters.classes(), "decoders": self._decoders.classes()}
        return PerceiverIOConfig(**{**arguments, **classes, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values; each component's dictionary names its class as `type`."""
        components = ("inputs", "encoder", "outputs", "packing", "shared_attention", "_adapters", "_decoders")
        kept = {name: self.__dict__.pop(name) for name in components}
        try:
            values = super().to_dict()
        finally:
            self.__dict__.update(kept)
        # Others leave their own marks on a configuration (a Trainer, `use_cache`): they are none of its settings.
        values = {name: value for name, value in values.items() if name in _KNOWN_KEYS}
        values["inputs"] = {name: _to_dict(self._adapters, part) for name, part in self.inputs.items()}
        values["encoder"] = self.encoder.to_dict()
        values["outputs"] = {name: _to_dict(self._decoders, part) for name, part in self.outputs.items()}
        values["packing"] = self.packing.to_dict()
        if self.shared_attention is not None:
            values["shared_attention"] = self.shared_attention.to_dict()
        return values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PerceiverIOConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Builds a configuration from what `to_dict` returned, strictly.

        Args:
            config_dict: JSON values.
            **kwargs: As `transformers.PreTrainedConfig.from_dict`; besides, `adapters` and `decoders` as this class
                takes them.

        Raises:
            ValueError: A key or a component's `type` is unknown, or the format is newer than this version.
        """
        _check_keys(config_dict, model_type=cls.model_type)
        adapters = kwargs.pop("adapters", None)
        decoders = kwargs.pop("decoders", None)
        return_unused_kwargs = kwargs.pop("return_unused_kwargs", False)
        config = cls(
            inputs=_from_dicts(ADAPTERS.extended(adapters or {}), config_dict["inputs"], where="inputs"),
            encoder=EncoderConfig.from_dict(config_dict["encoder"]),
            outputs=_from_dicts(DECODERS.extended(decoders or {}), config_dict["outputs"], where="outputs"),
            packing=_optional(PackingConfig, config_dict.get("packing"), where="packing"),
            shared_attention=_optional(
                SharedAttentionConfig, config_dict.get("shared_attention"), where="shared_attention"
            ),
            id2label=config_dict.get("id2label"),
            label2id=config_dict.get("label2id"),
            adapters=adapters,
            decoders=decoders,
        )
        for name in _BASE_FIELDS - {"id2label", "label2id"}:
            if config_dict.get(name) is not None:
                setattr(config, name, config_dict[name])
        if isinstance(config.dtype, str):
            config.dtype = getattr(torch, config.dtype)
        unused = {}
        for name, value in kwargs.items():
            if name.startswith("_from"):  # telemetry of the auto classes
                continue
            if name in ("dtype", "torch_dtype"):
                if value is not None and value != "auto":
                    config.dtype = value
            elif hasattr(config, name):
                setattr(config, name, value)
            else:
                unused[name] = value
        return (config, unused) if return_unused_kwargs else config


def _check_keys(config_dict: Mapping[str, Any], *, model_type: str) -> None:
    if not isinstance(config_dict, Mapping):
        raise ValueError(
            f"A configuration (config.json) must be an object, got {type(config_dict).__name__}."
        )
    if config_dict.get("model_type", model_type) != model_type:
        raise ValueError(
            f"This is the configuration of a {config_dict['model_type']!r} model, expected {model_type!r}. A published "
            "Perceiver of transformers is loaded by perceiver_io.from_pretrained."
        )
    version = config_dict.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"This configuration has the format version {version!r}; this version of perceiver_io reads 1 to "
            f"{FORMAT_VERSION}. Upgrade with: pip install --upgrade perceiver-io-toolkit"
        )
    if unknown := sorted(set(config_dict) - _KNOWN_KEYS):
        raise ValueError(
            f"The configuration has the unknown keys {unknown}. Known keys: "
            f"{sorted(_PARTS | _OPTIONAL_PARTS)}, 'format_version' and the fields of transformers.PreTrainedConfig."
        )
    names = config_dict.get("id2label")
    if names is not None and not (
        isinstance(names, Mapping) and all(str(index).isdecimal() for index in names)
    ):
        raise ValueError(f"id2label must name classes by their index, 0, 1, and so on, got {names!r:.200}.")
    architectures = config_dict.get("architectures")
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    ):
        raise ValueError(f"architectures must be a list of class names, got {architectures!r:.200}.")
    for part in sorted(_PARTS):
        if not isinstance(config_dict.get(part), Mapping):
            raise ValueError(
                f"The configuration needs an object under {part!r}, got {config_dict.get(part)!r}."
            )


def _optional(config_class: type[ConfigT], values: Any, *, where: str) -> ConfigT | None:
    if values is None:
        return None
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be an object, got {values!r:.200}.")
    return config_class.from_dict(values)


def _to_dict(registry: ComponentRegistry[Any], component: ComponentConfig) -> dict[str, Any]:
    return {"type": registry.name_of(component), **component.to_dict()}


def _from_dicts(
    registry: ComponentRegistry[Any], components: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
    built = {}
    for name, values in components.items():
        if not isinstance(values, Mapping) or not isinstance(values.get("type"), str):
            raise ValueError(
                f"{where}[{name!r}] must be an object whose 'type' names a registered {registry.kind}, got {values!r}."
            )
        fields = {key: value for key, value in values.items() if key != "type"}
        built[name] = registry.get(values["type"]).Config.from_dict(fields)
    return built
