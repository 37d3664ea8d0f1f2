"""`from_pretrained`: a saved model as the class that saved it, or a published one as the task's class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.files import is_path
from perceiver_io.model import PerceiverIO
from perceiver_io.plugins import load_plugin
from perceiver_io.pretrained import PerceiverIOPreTrainedModel, resolved_config
from perceiver_io.published.huggingface import MODEL_TYPE, load_transformers
from perceiver_io.published.layout import layouts
from perceiver_io.weight_files import HUB_OPTIONS

__all__ = ["from_pretrained", "load_model_plugins"]

MODEL_GROUP = "perceiver_io.models"


def from_pretrained(source: str | os.PathLike[str], **kwargs: Any) -> PerceiverIOPreTrainedModel:
    """Loads a saved model as the class that saved it, or a Perceiver of `transformers` as the task's class.

    Args:
        source: A folder (or hub id) that `save_pretrained` or a training run wrote, or one in the layout of
            `transformers`, such as "deepmind/language-perceiver".
        **kwargs: As `PerceiverIO.from_pretrained`. With ``config=`` a model computes what that configuration says,
            whatever its own does.

    Raises:
        ValueError: The configuration names a class that nobody has defined in this process, or the folder holds another
            kind of model, or loading fails as `PerceiverIO.from_pretrained` or
            `perceiver_io.published.load_transformers` document it.
        OSError: There is no such folder or id, or it lacks a file.
    """
    model_type = _model_type(source, kwargs)
    if model_type == MODEL_TYPE:
        return load_transformers(source, **kwargs)
    if model_type not in (None, PerceiverIOConfig.model_type):
        loaders = {kind: load for layout in layouts() for kind, load in layout.loaders.items()}
        if isinstance(model_type, str) and model_type in loaders:
            return loaders[model_type](source, **kwargs)
        raise ValueError(
            f"{source} holds a {model_type!r:.80} model, expected {PerceiverIOConfig.model_type!r}, or {MODEL_TYPE!r} "
            "for a Perceiver of transformers."
        )
    known = {cls.__name__: cls for cls in _subclasses(PerceiverIOPreTrainedModel)}
    config, kwargs = resolved_config(source, kwargs)
    name = (config.architectures or [PerceiverIO.__name__])[0]
    if name not in known:
        raise ValueError(
            f"{source} was saved by the class {name!a:.80}, which is not known here. Known: "
            f"{', '.join(sorted(known))}. Import the module that defines it first, or install the "
            "package that announces it in the group "
            f"{MODEL_GROUP!r}.{_broken_plugins()}"
        )
    return known[name].from_pretrained(source, config=config, **kwargs)


def _model_type(source: str | os.PathLike[str], kwargs: dict[str, Any]) -> Any:
    """The kind of model that config.json tells; None if it does not."""
    needed = kwargs.get("config") is None  # weights of ours need no config.json besides a configuration
    if is_path(source) and not os.path.exists(source):
        raise OSError(f"There is no folder {os.fspath(source)}.")
    hub_options = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
    try:
        config_json, _ = PerceiverIOConfig.get_config_dict(source, **hub_options)
    except OSError:
        if needed:
            raise
        return None
    if needed and config_json == {}:
        raise OSError(
            f"{source} has no config.json, or an empty one: expected a folder that save_pretrained wrote, ours or that "
            "of a Perceiver of transformers."
        )
    return config_json.get("model_type")


def load_model_plugins() -> None:
    """Imports the modules of the entry point group `perceiver_io.models`, which register their model classes.

    Auto classes of `transformers` want a class beforehand, so this cannot wait until one is asked for. A plug-in
    that fails to import is reported as a warning: it must not take the others with it.
    """
    for entry_point in entry_points(group=MODEL_GROUP):
        try:
            load_plugin(entry_point)
        except ValueError as error:
            warnings.warn(str(error), stacklevel=2)


def _broken_plugins() -> str:
    """What is wrong with the model plug-ins that cannot be imported; the class that is asked for may be in one."""
    problems = ""
    for entry_point in entry_points(group=MODEL_GROUP):
        try:
            load_plugin(entry_point)
        except ValueError as error:
            problems += f" {error}"
    return problems


def _subclasses(cls: type[PerceiverIOPreTrainedModel]) -> Iterator[type[PerceiverIOPreTrainedModel]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
