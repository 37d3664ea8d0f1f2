"""The section `model` of a recipe: settings of a model's parts, laid over those of a preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceiver_io.config import PerceiverIOConfig

__all__ = ["ModelSettings", "with_settings"]

Fields = dict[str, Any]

_PARTS = ("encoder", "packing", "shared_attention")
_GROUPS = ("inputs", "outputs")


class ModelSettings:
    """What a recipe says of the parts of its model, as keyword arguments of their configurations.

    Args:
        settings: `encoder`, `packing` and `shared_attention` with fields; `inputs` and `outputs` with names, and
            under each of these its fields.

    Raises:
        ValueError: A part is unknown, or something else than fields by name.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        settings = _fields(settings, "model")
        if unknown := sorted(set(settings) - {*_PARTS, *_GROUPS}):
            raise ValueError(
                f"model has the unknown parts {unknown!a:.200}, expected some of {', '.join((*_PARTS, *_GROUPS))}."
            )
        for name in _GROUPS:
            for part, fields in _fields(settings.get(name), f"model.{name}").items():
                if not part.isidentifier():
                    raise ValueError(
                        f"model.{name} has {part!a:.80}, which is no name of an input or output."
                    )
                _fields(fields, f"model.{name}.{part}")
        self.encoder, self.packing, self.shared_attention = (
            _fields(settings.get(name), f"model.{name}") for name in _PARTS
        )
        self._groups: dict[str, dict[str, Fields]] = {
            name: {part: dict(fields or {}) for part, fields in (settings.get(name) or {}).items()}
            for name in _GROUPS
        }

    def input(self, name: str) -> Fields:
        """Returns the settings of an input."""
        return self._groups["inputs"].get(name, {})

    def output(self, name: str) -> Fields:
        """Returns the settings of an output."""
        return self._groups["outputs"].get(name, {})

    def check(self, config: PerceiverIOConfig) -> None:
        """Makes sure that a configuration has all that is set.

        Raises:
            ValueError: An input, output or optional part is not there, or a setting was passed over.
        """
        parts: dict[str, tuple[Fields, Any]] = {
            "encoder": (self.encoder, config.encoder),
            "packing": (self.packing, config.packing),
            "shared_attention": (self.shared_attention, config.shared_attention),
        }
        for group, known in (("inputs", config.inputs), ("outputs", config.outputs)):
            parts |= {
                f"{group}.{name}": (fields, known.get(name)) for name, fields in self._groups[group].items()
            }
        for where, (fields, part) in parts.items():
            if fields and part is None:
                raise ValueError(
                    f"There is no model.{where:.80} to set {sorted(fields)!a:.200} of: the model has the inputs "
                    f"{list(config.inputs)} and the outputs {list(config.outputs)}."
                )
            if not fields:
                continue
            wanted = type(part).from_dict({**part.to_dict(), **fields})
            if wanted != part:
                differing = {
                    name: (value, part.to_dict()[name])
                    for name, value in wanted.to_dict().items()
                    if part.to_dict()[name] != value
                }
                raise ValueError(
                    f"model.{where} cannot be set so: it follows from other settings (wanted, got): {differing}."
                )


def with_settings(config: PerceiverIOConfig, settings: ModelSettings) -> PerceiverIOConfig:
    """Returns a configuration with other settings of some of its parts.

    Raises:
        ValueError: A part is not there, or a setting is unknown or of a wrong type.
    """

    def changed(part: Any, fields: Fields) -> Any:
        return part if part is None or not fields else type(part).from_dict({**part.to_dict(), **fields})

    new = config.replaced(
        inputs={name: changed(part, settings.input(name)) for name, part in config.inputs.items()},
        encoder=changed(config.encoder, settings.encoder),
        outputs={name: changed(part, settings.output(name)) for name, part in config.outputs.items()},
        packing=changed(config.packing, settings.packing),
        shared_attention=changed(config.shared_attention, settings.shared_attention),
    )
    settings.check(new)
    return new


def _fields(value: Any, where: str) -> Fields:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{where} is {value!r:.80}, expected settings by name.")
    return dict(value)
