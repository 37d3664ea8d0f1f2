"""What is to be known of a published model to read it: its configuration, and what its tensors are called elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.plugins import load_plugin
from perceiver_io.pretrained import PerceiverIOPreTrainedModel

__all__ = ["PublishedLayout", "layout_of", "layouts", "published_config", "renamed"]

LAYOUT_GROUP = "perceiver_io.published_layouts"


@dataclass(frozen=True, kw_only=True)
class PublishedLayout:
    """What a task knows of the published models of its kind.

    Tasks announce theirs in the entry point group `perceiver_io.published_layouts`. Names are those of `PerceiverIO`'s
    modules and tensors; the longest that a tensor's name begins with counts. What all models have in common (the
    encoder, the parts of an attention) is not listed.

    Attributes:
        model_class: The task's class.
        inputs: Names of its inputs, sorted.
        outputs: Names of its outputs, sorted. A configuration with these inputs and outputs is of this layout.
        models: Configurations of published models by name, as the original release computes them.
        architectures: By class name in `transformers`: reads the fields of its configuration, of which all are there,
            into a configuration that computes what that class computes.
        to_transformers: Returns the fields, with `architectures`, of the class in `transformers` that computes what a
            configuration describes; a ValueError if none does.
        transformers_names: Our modules and tensors to those of `transformers`.
        deepmind_names: Our modules to the modules of the original release, our tensors to "module/leaf".
        deepmind_table: Instead of `deepmind_names`, where the release has other names for what all models have: returns
            "module/leaf" by the name of each of a model's tensors.
        deepmind_arrays: Returns the release's arrays, by "module/leaf", as they correspond to a model's tensors.
        loaders: By the model type in a config.json of others: loads such a folder or hub id.
    """

    model_class: type[PerceiverIOPreTrainedModel]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    models: Mapping[str, Callable[[], PerceiverIOConfig]]
    architectures: Mapping[str, Callable[[Mapping[str, Any]], PerceiverIOConfig]]
    to_transformers: Callable[[PerceiverIOConfig], dict[str, Any]]
    transformers_names: Mapping[str, str]
    deepmind_names: Mapping[str, str]
    deepmind_table: Callable[[PerceiverIOPreTrainedModel], dict[str, str]] | None = None
    deepmind_arrays: Callable[[PerceiverIOPreTrainedModel, Mapping[str, Any]], dict[str, Any]] | None = None
    loaders: Mapping[str, Callable[..., PerceiverIOPreTrainedModel]] = field(default_factory=dict)


def layouts() -> list[PublishedLayout]:
    """Returns the layouts of all installed tasks, which it imports; one that fails to import is a warning."""
    found = []
    for entry_point in sorted(entry_points(group=LAYOUT_GROUP), key=lambda entry_point: entry_point.name):
        try:
            found.append(load_plugin(entry_point))
        except ValueError as error:
            warnings.warn(str(error), stacklevel=2)
    return found


def layout_of(config: PerceiverIOConfig) -> PublishedLayout:
    """Returns the layout that a configuration belongs to.

    Raises:
        ValueError: No published model has its inputs and outputs.
    """
    known = layouts()
    wanted = (tuple(config.inputs), tuple(config.outputs))
    for layout in known:
        if (layout.inputs, layout.outputs) == wanted:
            return layout
    raise ValueError(
        f"No published model has the inputs {list(config.inputs)} and the outputs {list(config.outputs)}. Known: "
        + "; ".join(f"{', '.join(layout.inputs)} -> {', '.join(layout.outputs)}" for layout in known)
        + "."
    )


def published_config(name: str) -> PerceiverIOConfig:
    """Returns the configuration of a published model, as the original release computes it.

    Args:
        name: "language-perceiver", "vision-perceiver-learned", "vision-perceiver-fourier", "vision-perceiver-conv",
            "optical-flow-perceiver" or "multimodal-perceiver", or what an installed package adds; with or without
            "deepmind/" before it.

    Raises:
        ValueError: The name is unknown.
    """
    models = {model: make for layout in layouts() for model, make in layout.models.items()}
    make = models.get(name.removeprefix("deepmind/")) if isinstance(name, str) else None
    if make is None:
        raise ValueError(f"There is no published model {name!r:.80}. Known: {', '.join(sorted(models))}.")
    return make()


def renamed(name: str, names: Mapping[str, str]) -> tuple[str, str] | None:
    """Returns what the longest prefix of a dotted name is called in `names`, and the rest of the name.

    Args:
        name: "encoder.blocks.0.layers.3.norm.weight".
        names: {"encoder.blocks.0.layers": "perceiver.encoder.self_attends", …}.

    Returns:
        ("perceiver.encoder.self_attends", "3.norm.weight"), the rest without the dot between; None if none fits.
    """
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        if (found := names.get(".".join(parts[:count]))) is not None:
            return found, ".".join(parts[count:])
    return None
