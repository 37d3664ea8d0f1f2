"""`from_pretrained`: a saved model as the class that saved it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

from perceiver_io.config import PerceiverIOConfig
from perceiver_io.model import PerceiverIO, PerceiverIOPreTrainedModel

__all__ = ["from_pretrained", "load_model_plugins"]

MODEL_GROUP = "perceiver_io.models"


def from_pretrained(source: str | os.PathLike[str], **kwargs: Any) -> PerceiverIOPreTrainedModel:
    """Loads a saved model as the class that saved it: the task's class for a task's model.

    Args:
        source: A folder (or hub id) that `save_pretrained` or a training run wrote.
        **kwargs: As `PerceiverIO.from_pretrained`.

    Raises:
        ValueError: The configuration names a class that nobody has defined in this process, or loading fails as
            `PerceiverIO.from_pretrained` documents it.
        OSError: There is no such folder or id.
    """
    config = kwargs.get("config")
    if config is None:
        components = {name: kwargs[name] for name in ("adapters", "decoders") if name in kwargs}
        config = kwargs["config"] = PerceiverIOConfig.from_pretrained(source, **components)
    known = {cls.__name__: cls for cls in _subclasses(PerceiverIOPreTrainedModel)}
    name = (config.architectures or [PerceiverIO.__name__])[0]
    if name not in known:
        raise ValueError(
            f"{source} was saved by the class {name!r}, which is not known here. Known: {', '.join(sorted(known))}. "
            "Import the module that defines it first."
        )
    return known[name].from_pretrained(source, **kwargs)


def load_model_plugins() -> None:
    """Imports the modules of the entry point group `perceiver_io.models`, which register their model classes.

    Auto classes of `transformers` want a class beforehand, so this cannot wait until one is asked for. A plug-in
    that fails to import is reported as a warning: it must not take the others with it.
    """
    for entry_point in entry_points(group=MODEL_GROUP):
        try:
            entry_point.load()
        except Exception as error:  # whatever a foreign module raises
            warnings.warn(
                f"The model plug-in {entry_point.name!r} ({entry_point.value}) cannot be imported: {error!r}",
                stacklevel=2,
            )


def _subclasses(cls: type[PerceiverIOPreTrainedModel]) -> Iterator[type[PerceiverIOPreTrainedModel]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
