"""What the presets of tasks are made with: variants by name, class names, settings laid over a variant's.

def config(*, variant="tiny", size=None, image=None, encoder=None):
    of_image, of_encoder = variant_parts(VARIANTS, variant, of="image classifier")
    return PerceiverIOConfig(
        inputs={"image": laid_over(ImageAdapter.Config, of_image, given(size=size), image)},
        encoder=laid_over(EncoderConfig, of_encoder, encoder),
        ...
    )
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from perceiver_io.component import ConfigT

__all__ = ["class_labels", "given", "laid_over", "variant_parts"]

PartsT = TypeVar("PartsT")


def variant_parts(variants: Mapping[str, Callable[[], PartsT]], variant: str, *, of: str) -> PartsT:
    """Returns what a variant consists of: its own copy, which may be changed.

    Args:
        variants: Functions that make the parts, by name.
        variant: The name.
        of: What there are variants of, for the message: "image classifier".

    Raises:
        ValueError: There is no such variant.
    """
    if not isinstance(variant, str) or variant not in variants:
        raise ValueError(f"There is no variant {variant!r:.80} of the {of}. Known: {', '.join(variants)}.")
    return variants[variant]()


def class_labels(
    num_classes: int | None, class_names: Sequence[str] | None, *, default: int
) -> tuple[int, dict[int, str] | None]:
    """Returns how many classes there are, and their names by index as configurations have them.

    Args:
        num_classes: Their number; that of the names if None.
        class_names: Their names, in order; None if they have none.
        default: How many there are where neither is said.

    Raises:
        ValueError: The two disagree, or two names are equal.
    """
    if class_names is None:
        return default if num_classes is None else num_classes, None
    if num_classes is not None and num_classes != len(class_names):
        raise ValueError(f"num_classes is {num_classes}, but class_names has {len(class_names)} names.")
    if len(set(class_names)) != len(class_names):
        raise ValueError(f"class_names must differ from each other, got {list(class_names)!r:.200}.")
    return len(class_names), dict(enumerate(class_names))


def given(**fields: Any) -> dict[str, Any]:
    """Returns those fields that are not None: a layer of what a caller may leave to the variant."""
    return {name: value for name, value in fields.items() if value is not None}


def laid_over(config_class: type[ConfigT], *layers: Mapping[str, Any] | None) -> ConfigT:
    """Returns a configuration of the fields of all layers; later ones go before earlier ones.

    Args:
        config_class: The configuration's class.
        *layers: Fields by name: the variant's, what follows from other parts, what the caller gave. None has none.

    Raises:
        ValueError: A field is unknown or missing, or its value is not allowed.
    """
    fields: dict[str, Any] = {}
    for layer in layers:
        if layer is not None and not isinstance(layer, Mapping):
            raise ValueError(f"{config_class.__qualname__} has fields by name, got {layer!r:.200}.")
        fields |= layer or {}
    return config_class.from_dict(fields)
