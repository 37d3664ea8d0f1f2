"""The configuration of a whole model: its inputs, its encoder, its outputs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from numbers import Integral
from typing import Any, cast

from torch import nn
from transformers import PreTrainedConfig

from perceiver_io.byte_array import PackingConfig
from perceiver_io.causal.encoder import CausalEncoderConfig
from perceiver_io.component import ComponentConfig, ConfigT
from perceiver_io.config_json import (
    BASE_FIELDS,
    FORMAT_VERSION,
    check_keys,
    class_names,
    given_dtype,
    is_known,
    read_json_object,
)
from perceiver_io.decoder import DecoderConfig
from perceiver_io.encoder import EncoderConfig
from perceiver_io.quantized_weights import QUANTIZATION
from perceiver_io.query_attention import SharedAttentionConfig
from perceiver_io.registry import ADAPTERS, DECODERS, ComponentRegistry

__all__ = ["LABEL_OPTIONS", "PerceiverIOConfig"]

LABEL_OPTIONS = ("num_labels", "id2label", "label2id")
"""What `PerceiverIOConfig.with_labels` takes, wherever a model or its configuration is loaded."""

# The fields of configurations that say how many numbers an output has for each sample.
_COUNTS = ("num_classes", "num_outputs")
# What `encoder.type` says; without one it is the encoder with learned latents.
_ENCODERS: dict[str, type[EncoderConfig] | type[CausalEncoderConfig]] = {
    "latent": EncoderConfig,
    "causal": CausalEncoderConfig,
}
# More layers than any model has: a file could ask for billions, and each is a module that is built before it is used.
_MOST_LAYERS = 1_000
_MOST_CLASSES = 10_000_000
_LONGEST_NAME = 100  # of an input or output


class PerceiverIOConfig(PreTrainedConfig):
    """Configuration of a `PerceiverIO` model, for every task.

    Without any argument it is empty, as `transformers` makes some to compare with; no model can be built of it.

    Args:
        inputs: Adapter configuration of each input, by the input's name.
        encoder: Settings of the encoder: with learned latents, or causal.
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
        inputs: Mapping[str, ComponentConfig] | None = None,
        encoder: EncoderConfig | CausalEncoderConfig | None = None,
        outputs: Mapping[str, DecoderConfig] | None = None,
        packing: PackingConfig | None = None,
        shared_attention: SharedAttentionConfig | None = None,
        id2label: Mapping[int, str] | None = None,
        label2id: Mapping[str, int] | None = None,
        adapters: Mapping[str, type] | None = None,
        decoders: Mapping[str, type] | None = None,
    ) -> None:
        is_empty = inputs is None and encoder is None and outputs is None
        inputs = _by_name("inputs", inputs, ComponentConfig, "the Config of an adapter")
        outputs = _by_name("outputs", outputs, ComponentConfig, "the Config of a decoder")
        adapters, decoders = (
            _by_name(where, classes, type, "a class")
            for where, classes in (("adapters", adapters), ("decoders", decoders))
        )
        if label2id is not None:
            indices = _by_name("label2id", label2id, Integral, "an index")
            label2id = {name: int(index) for name, index in indices.items()}
        for where, part, kind in (
            ("packing", packing, PackingConfig),
            ("shared_attention", shared_attention, SharedAttentionConfig),
        ):
            if part is not None and not isinstance(part, kind):
                raise ValueError(f"{where} must be a {kind.__name__}, got {part!r:.200}.")
        if not is_empty and not (inputs and outputs):
            raise ValueError(
                f"A model needs at least one input and one output, got the inputs {sorted(inputs)} and the outputs "
                f"{sorted(outputs)}."
            )
        for name in (*inputs, *outputs):
            if not name.isidentifier() or len(name) > _LONGEST_NAME:
                raise ValueError(
                    f"Inputs and outputs are named by Python identifiers, got {name!a:.80}; expected at most "
                    f"{_LONGEST_NAME} characters."
                )
            if hasattr(nn.ModuleDict, name):
                raise ValueError(f"The name {name!a:.80} is taken by torch.nn.ModuleDict: choose another.")
        if isinstance(encoder, (EncoderConfig, CausalEncoderConfig)):
            _check_depth(encoder)
        elif not is_empty:
            raise ValueError(
                f"encoder must be an EncoderConfig or a CausalEncoderConfig, got {type(encoder).__name__}."
            )
        self.format_version = FORMAT_VERSION
        self._adapters = ADAPTERS.extended(adapters)
        self._decoders = DECODERS.extended(decoders)
        self.inputs = {name: inputs[name] for name in sorted(inputs)}
        self.encoder: EncoderConfig | CausalEncoderConfig = encoder  # type: ignore[assignment]  # None if it is empty
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
        self.id2label = None if id2label is None else class_names(id2label)
        if label2id is None and self.id2label is not None:
            label2id = {label: index for index, label in self.id2label.items()}
        self.label2id = label2id
        self.__post_init__()
        if id2label is None:  # the base class makes up two labels
            self.id2label = self.label2id = None

    @property
    def is_empty(self) -> bool:
        """Whether it was made of nothing."""
        return not self.inputs

    def _check_names(self) -> None:
        named: dict[str, tuple[set[str], Mapping[str, ComponentConfig]]] = {
            f"packing.{field}": ({name for name, _ in getattr(self.packing, field)}, self.inputs)
            for field in ("mask_probabilities", "input_dropout")
        }
        if isinstance(self.encoder, CausalEncoderConfig):
            named["encoder.sequence"] = ({self.encoder.sequence}, self.inputs)
        if self.shared_attention is not None:
            named["shared_attention.outputs"] = (set(self.shared_attention.outputs), self.outputs)
        for output, part in self.outputs.items():
            named[f"outputs[{output!r}]"] = (part.needs().names, self.inputs)
        for where, (names, known) in named.items():
            if unknown := sorted(names - set(known)):
                raise ValueError(f"{where} names {unknown!a:.200}, but there are only {list(known)}.")

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

    def with_labels(
        self,
        *,
        num_labels: int | None = None,
        id2label: Mapping[int, str] | None = None,
        label2id: Mapping[str, int] | None = None,
    ) -> PerceiverIOConfig:
        """Returns a configuration with other classes, or another number of them, for a head that is trained anew.

        What they are classes of is the one output that has `num_classes`; an input of its name that has them too gets
        as many. Of an output that has `num_outputs` instead, a regression's, it is the number of these.

        Args:
            num_labels: Their number; that of the names if None.
            id2label: Their names by index; if None, by `label2id`, or they stay if their number does.
            label2id: Indices by class name; follows from `id2label` if None.

        Raises:
            ValueError: The numbers disagree, or there is not one output that they could be about.
        """
        if id2label is None and label2id is not None:
            id2label = {index: label for label, index in label2id.items()}
        names = None if id2label is None else class_names(id2label)
        count = num_labels if names is None else len(names)
        if num_labels not in (None, count):
            raise ValueError(f"num_labels is {num_labels}, but there are names for {count} classes.")
        counts = {
            name: field for name, part in self.outputs.items() for field in _COUNTS if hasattr(part, field)
        }
        if len(counts) != 1:
            raise ValueError(
                "num_labels, id2label and label2id are about the one output that has classes, or numbers, for each "
                f"sample. Of the outputs {list(self.outputs)}, {len(counts)} have them: pass a config with other parts."
            )
        ((output, field),) = counts.items()
        if names is not None and field != "num_classes":
            raise ValueError(f"The numbers of the output {output!r} have no names: pass num_labels alone.")
        if names is None and self.id2label is not None and len(self.id2label) == count:
            names = class_names(self.id2label)
        inputs, outputs = (
            {
                name: dataclasses.replace(part, **{field: count})
                if name == output and hasattr(part, field)
                else part
                for name, part in parts.items()
            }
            for parts in (self.inputs, self.outputs)
        )
        labelled = self.replaced(inputs=inputs, outputs=outputs, id2label=names, label2id=label2id)
        for name in BASE_FIELDS - {"id2label", "label2id"}:
            setattr(labelled, name, getattr(self, name))
        if field == "num_classes":
            labelled.name_classes(getattr(outputs[output], field))
        return labelled

    def name_classes(self, num_classes: int) -> None:
        """Makes sure that each class has a name: LABEL_0, LABEL_1, and so on if they have none.

        Args:
            num_classes: How many there are.

        Raises:
            ValueError: There are names, but not as many; or more classes than anybody has names for.
        """
        if self.id2label is None:
            if num_classes > _MOST_CLASSES:  # a file may ask for any number
                raise ValueError(f"At most {_MOST_CLASSES:,} classes can have names, got {num_classes:,}.")
            self.num_labels = num_classes
        elif len(self.id2label) != num_classes:
            raise ValueError(
                f"The configuration names {len(self.id2label)} classes in id2label, its decoder has {num_classes}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values; each component's dictionary names its class as `type`, and what plug-in brought it."""
        if self.is_empty:
            return {"model_type": self.model_type, "format_version": self.format_version}
        components = ("inputs", "encoder", "outputs", "packing", "shared_attention", "_adapters", "_decoders")
        kept = {name: self.__dict__.pop(name) for name in components}
        try:
            values = super().to_dict()
        finally:
            self.__dict__.update(kept)
        # Others leave their own marks on a configuration (a Trainer, `use_cache`): they are none of its settings.
        values = {name: value for name, value in values.items() if is_known(name)}
        values["inputs"] = {name: _to_dict(self._adapters, part) for name, part in self.inputs.items()}
        values["encoder"] = self.encoder.to_dict()
        if isinstance(self.encoder, CausalEncoderConfig):
            values["encoder"] = {"type": "causal", **values["encoder"]}
        values["outputs"] = {name: _to_dict(self._decoders, part) for name, part in self.outputs.items()}
        values["packing"] = self.packing.to_dict()
        if self.shared_attention is not None:
            values["shared_attention"] = self.shared_attention.to_dict()
        return values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PerceiverIOConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> Any:
        """Reads a folder's (or hub id's) config.json, strictly.

        Args:
            pretrained_model_name_or_path: The folder or id.
            *args: As `transformers.PreTrainedConfig.from_pretrained`.
            **kwargs: The same, and those of `from_dict`.

        Raises:
            ValueError: The file is no JSON object, or no configuration of ours.
            OSError: There is no such folder, id or file, or it is no JSON.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except ValueError as error:
            raise ValueError(
                f"The config.json of {pretrained_model_name_or_path} cannot be used. {error}"
            ) from error

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike[str]) -> PerceiverIOConfig:
        """Reads a config.json, strictly.

        Args:
            json_file: The file.

        Raises:
            ValueError: As `from_dict`, or it is no JSON object.
            OSError: It cannot be read.
        """
        return cast(PerceiverIOConfig, cls.from_dict(cls._dict_from_json_file(json_file)))

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike[str]) -> dict[str, Any]:
        """What the base class reads a file with."""
        values: dict[str, Any] = cls._decode_special_floats(read_json_object(json_file))
        if "configuration_files" in values:  # the base class would go on with one that this names
            raise ValueError(
                f"{json_file} names other files under 'configuration_files', which is not supported."
            )
        return values

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Builds a configuration from what `to_dict` returned, strictly.

        Args:
            config_dict: JSON values.
            **kwargs: As `transformers.PreTrainedConfig.from_dict`; besides, `adapters` and `decoders` as this class
                takes them, and `num_labels`, `id2label` and `label2id` as `with_labels` does.

        Raises:
            ValueError: A key or a component's `type` is unknown, a value is of a wrong type, or the format is newer
                than this version.
        """
        check_keys(config_dict, model_type=cls.model_type)
        adapters = kwargs.pop("adapters", None)
        decoders = kwargs.pop("decoders", None)
        return_unused_kwargs = kwargs.pop("return_unused_kwargs", False)
        config = cls(
            inputs=_from_dicts(ADAPTERS.extended(adapters or {}), config_dict["inputs"], where="inputs"),
            encoder=_encoder(config_dict["encoder"]),
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
        for name in BASE_FIELDS - {"id2label", "label2id"}:
            if config_dict.get(name) is not None:
                setattr(config, name, config_dict[name])
        if config_dict.get(QUANTIZATION) is not None:
            config.quantization_config = dict(config_dict[QUANTIZATION])
        config.dtype = given_dtype(config.dtype)
        given = {name: kwargs.pop(name) for name in LABEL_OPTIONS if name in kwargs}
        labels = {name: value for name, value in given.items() if value is not None}
        if labels:
            config = config.with_labels(**labels)
        unused = {}
        for name, value in kwargs.items():
            if name.startswith("_from"):  # telemetry of the auto classes
                continue
            if name in ("dtype", "torch_dtype"):
                if value is not None and value != "auto":
                    config.dtype = given_dtype(value)
            elif hasattr(config, name):
                setattr(config, name, value)
            else:
                unused[name] = value
        return (config, unused) if return_unused_kwargs else config


def _by_name(where: str, values: Any, kind: type, what: str) -> dict[str, Any]:
    """Returns the values of a mapping whose values are of a kind; nothing for None."""
    if values is None:
        return {}
    if not isinstance(values, Mapping) or not all(
        isinstance(name, str) and isinstance(value, kind) for name, value in values.items()
    ):
        raise ValueError(f"{where} must be a mapping of names, each with {what}, got {values!r:.200}.")
    return dict(values)


def _encoder(values: Mapping[str, Any]) -> EncoderConfig | CausalEncoderConfig:
    kind = values.get("type", "latent")
    if not isinstance(kind, str) or kind not in _ENCODERS:
        raise ValueError(f"encoder.type must be one of {sorted(_ENCODERS)}, got {kind!r:.80}.")
    return _ENCODERS[kind].from_dict({name: value for name, value in values.items() if name != "type"})


def _check_depth(encoder: EncoderConfig | CausalEncoderConfig) -> None:
    if isinstance(encoder, CausalEncoderConfig):
        layers = 1 + encoder.num_self_attends
    else:
        layers = max(encoder.num_blocks, 1) * max(encoder.num_self_attends_per_block, 1)
        layers += encoder.num_cross_attends
    if layers > _MOST_LAYERS:
        raise ValueError(f"An encoder has at most {_MOST_LAYERS:,} layers, this one would have {layers:.3g}.")


def _optional(config_class: type[ConfigT], values: Any, *, where: str) -> ConfigT | None:
    if values is None:
        return None
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be an object, got {values!r:.200}.")
    return config_class.from_dict(values)


def _to_dict(registry: ComponentRegistry[Any], component: ComponentConfig) -> dict[str, Any]:
    return registry.tagged(registry.name_of(component), component.to_dict())


def _from_dicts(
    registry: ComponentRegistry[Any], components: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
    built = {}
    for name, values in components.items():
        component, fields = registry.untagged(values, where=f"{where}[{name!a:.80}]")
        built[name] = component.Config.from_dict(fields)
    return built
