"""Short names of adapters, decoders and tasks, and where to find the classes they stand for.

A name is looked up among the classes registered in this process, then among the installed entry points, of
which only the one asked for is imported. No file ever names a class to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

__all__ = [
    "ADAPTERS",
    "DECODERS",
    "TASKS",
    "Registry",
    "register_adapter",
    "register_decoder",
    "register_task",
]

ClassT = TypeVar("ClassT", bound=type)


class Registry(Generic[ClassT]):
    """Names of one kind of plug-in.

    Args:
        kind: What the classes are, for messages: "adapter".
        group: Entry point group that other distributions announce theirs in: "perceiver_io.adapters".
    """

    def __init__(self, kind: str, *, group: str) -> None:
        self.kind = kind
        self.group = group
        self._classes: dict[str, ClassT] = {}

    def register(self, name: str) -> Callable[[ClassT], ClassT]:
        """Returns a class decorator that registers under a name.

        Raises:
            ValueError: Another class has the name already.
        """

        def decorate(cls: ClassT) -> ClassT:
            known = self._classes.get(name)
            # A module that is run again (a notebook cell, importlib.reload) replaces its own classes.
            if known is not None and (known.__module__, known.__qualname__) != (
                cls.__module__,
                cls.__qualname__,
            ):
                raise ValueError(
                    f"The {self.kind} name {name!r} is taken by {known.__module__}.{known.__qualname__}. "
                    f"Register {cls.__qualname__} under another name."
                )
            self._classes[name] = cls
            return cls

        return decorate

    def get(self, name: str) -> ClassT:
        """Returns the class of a name.

        Raises:
            ValueError: Nobody registered the name.
        """
        if name not in self._classes:
            for entry_point in entry_points(group=self.group, name=name):
                self._classes[name] = entry_point.load()
        if name not in self._classes:
            raise ValueError(
                f"There is no {self.kind} {name!r}. Known: {', '.join(self.names()) or 'none'}. Import the module that "
                f"registers it first, or install the package that announces it in the group {self.group!r}."
            )
        return self._classes[name]

    def names(self) -> list[str]:
        """Returns all known names, sorted, without importing anything."""
        return sorted({*self._classes, *(entry_point.name for entry_point in entry_points(group=self.group))})

    def classes(self) -> dict[str, ClassT]:
        """Returns the classes that are known in this process, by name."""
        return dict(self._classes)

    def class_of(self, config: object) -> ClassT:
        """Returns the registered class that a component configuration belongs to.

        Raises:
            ValueError: No registered class has this configuration.
        """
        return self._classes[self.name_of(config)]

    def name_of(self, config: object) -> str:
        """Returns the name of the registered class that a component configuration belongs to.

        Raises:
            ValueError: No registered class has this configuration.
        """
        for name, known in self._classes.items():
            if getattr(known, "Config", None) is type(config):
                return name
        raise ValueError(
            f"No registered {self.kind} has the configuration {type(config).__qualname__}. Decorate the class that it "
            f"belongs to with @perceiver_io.register_{self.kind}(name). Known: {', '.join(self.names()) or 'none'}."
        )

    def extended(self, classes: Mapping[str, ClassT]) -> Registry[ClassT]:
        """Returns a registry that knows these classes first and everything that this one knows besides."""
        extended: Registry[ClassT] = Registry(self.kind, group=self.group)
        extended._classes = {**self._classes, **classes}
        return extended


ADAPTERS: Registry[Any] = Registry("adapter", group="perceiver_io.adapters")
DECODERS: Registry[Any] = Registry("decoder", group="perceiver_io.decoders")
TASKS: Registry[Any] = Registry("task", group="perceiver_io.tasks")


def register_adapter(name: str) -> Callable[[ClassT], ClassT]:
    """Registers an `InputAdapter` under the name that configurations use for it."""
    return ADAPTERS.register(name)


def register_decoder(name: str) -> Callable[[ClassT], ClassT]:
    """Registers a `Decoder` under the name that configurations use for it."""
    return DECODERS.register(name)


def register_task(name: str) -> Callable[[ClassT], ClassT]:
    """Registers a task under the name that the command line uses for it."""

    def decorate(cls: ClassT) -> ClassT:
        cls.name = name  # type: ignore[attr-defined]
        return TASKS.register(name)(cls)

    return decorate
