"""Short names of adapters, decoders, processors and tasks, and where to find the classes they stand for.

A name is looked up among the classes registered in this process, then among the installed entry points, of
which only the one asked for is imported. No file ever names a class to import.

Either is enough: a decorated class needs no entry point, and a class that an entry point announces needs no decorator.

Shape of what is saved: the name as `type`; `provided_by` beside it says which plug-in brought the class.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from perceiver_io.component import ComponentConfig
from perceiver_io.decoder import DecoderConfig
from perceiver_io.plugins import PROVIDED_BY, announces, load_plugin, provider_of, where_from

__all__ = [
    "ADAPTERS",
    "DECODERS",
    "PROCESSORS",
    "TASKS",
    "ComponentRegistry",
    "ProcessorRegistry",
    "Registry",
    "TaskRegistry",
    "register_adapter",
    "register_decoder",
    "register_processor",
    "register_task",
]

_OURS = __name__.partition(".")[0]

ClassT = TypeVar("ClassT", bound=type)
RegistryT = TypeVar("RegistryT", bound="Registry[Any]")


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
            ValueError: Another class has the name already, or the class is none of this kind.
        """

        def decorate(cls: ClassT) -> ClassT:
            self._add(name, cls)
            return cls

        return decorate

    def get(self, name: str, *, provided_by: Any = None) -> ClassT:
        """Returns the class of a name.

        Args:
            name: The name.
            provided_by: What a file says of the distribution that it came from; only for the message.

        Raises:
            ValueError: Nobody registered or announced the name, or what is announced cannot be imported.
        """
        if name not in self._classes:
            announced = tuple(entry_points(group=self.group, name=name))
            if not announced:
                raise ValueError(
                    f"There is no {self.kind} {name!a:.80}. Known: {', '.join(self.names()) or 'none'}. Import the "
                    "module that registers it first, or install the package that announces it in the group "
                    f"{self.group!r}.{where_from(provided_by)}"
                )
            self._load(announced[0])
        return self._classes[name]

    def provider(self, cls: type) -> str | None:
        """Returns which plug-in brought a class, "NAME VERSION" of its distribution.

        Args:
            cls: The class.

        Returns:
            None for what is of this toolkit, or is announced by nobody, as what a module of the user registers.
        """
        if cls.__module__.partition(".")[0] == _OURS:
            return None
        for entry_point in entry_points(group=self.group):
            if announces(entry_point, cls):
                return provider_of(entry_point)
        return None

    def listing(self) -> list[dict[str, str]]:
        """Returns everything that is registered or announced, by name, with where it comes from; imports all of it.

        Returns:
            For each `name`, `class`, and, where a distribution announces it, `distribution` and `version`. What cannot
            be used has an `error` instead of a class.
        """
        known = self.extended({})  # nothing is registered by being looked at
        rows = []
        for entry_point in entry_points(group=self.group):
            row = {"name": entry_point.name}
            try:
                cls = known._classes.get(entry_point.name)
                if cls is None or not announces(entry_point, cls):
                    cls = known._load(entry_point)
                row["class"] = f"{cls.__module__}.{cls.__qualname__}"
            except ValueError as error:
                row["error"] = " ".join(str(error).split())
            provider = provider_of(entry_point)
            if provider is not None:
                row["distribution"], row["version"] = provider.split()
            rows.append(row)
        announced = {row["name"] for row in rows if "class" in row}
        rows += [
            {"name": name, "class": f"{cls.__module__}.{cls.__qualname__}"}
            for name, cls in self._classes.items()
            if name not in announced
        ]
        return sorted(rows, key=lambda row: row["name"])

    def tagged(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what is saved of something: its name as `type`, which plug-in brought it, and its settings.

        Args:
            name: A name that is known.
            fields: The settings.
        """
        provider = self.provider(self.get(name))
        return {"type": name, **({} if provider is None else {PROVIDED_BY: provider}), **fields}

    def untagged(self, values: Any, *, where: str) -> tuple[ClassT, dict[str, Any]]:
        """Returns the class and the settings of what `tagged` returned.

        Args:
            values: What a file has.
            where: What messages call the place in the file.

        Raises:
            ValueError: It names no class that is known.
        """
        if not isinstance(values, Mapping) or not isinstance(values.get("type"), str):
            raise ValueError(
                f"{where} must be an object whose 'type' names a registered {self.kind}, got {values!r:.200}."
            )
        fields = {key: value for key, value in values.items() if key not in ("type", PROVIDED_BY)}
        return self.get(values["type"], provided_by=values.get(PROVIDED_BY)), fields

    def names(self) -> list[str]:
        """Returns all known names, sorted, without importing anything."""
        return sorted({*self._classes, *(entry_point.name for entry_point in entry_points(group=self.group))})

    def classes(self) -> dict[str, ClassT]:
        """Returns the classes that are known in this process, by name."""
        return dict(self._classes)

    def extended(self: RegistryT, classes: Mapping[str, ClassT]) -> RegistryT:
        """Returns a registry that knows these classes first and everything that this one knows besides.

        Raises:
            ValueError: A class is none of this kind.
        """
        extended = copy.copy(self)
        extended._classes = {name: cls for name, cls in self._classes.items() if name not in classes}
        for name, cls in classes.items():
            extended._add(name, cls)
        return extended

    def _add(self, name: str, cls: ClassT) -> None:
        known = self._classes.get(name)
        if known is not None and not _same(known, cls):
            raise ValueError(
                f"The {self.kind} name {name!r} is taken by {known.__module__}.{known.__qualname__}. "
                f"Register {cls.__qualname__} under another name."
            )
        self._check(name, cls)
        self._classes[name] = cls

    def _check(self, name: str, cls: ClassT) -> None:
        """Raises a ValueError if a class is none of this kind; for subclasses."""

    def _load(self, entry_point: EntryPoint) -> ClassT:
        loaded: Any = load_plugin(entry_point)
        if not isinstance(loaded, type):
            raise ValueError(
                f"The {self.kind} {entry_point.name!r} must be a class, but {entry_point.value!r}, which is announced "
                f"for it, is a {type(loaded).__name__}."
            )
        self._add(entry_point.name, loaded)  # type: ignore[arg-type]  # which class it is, nobody knows before
        return self._classes[entry_point.name]


class ComponentRegistry(Registry[ClassT]):
    """Names of components, each with a `Config` by which its class is found.

    Args:
        kind: As `Registry`.
        group: As `Registry`.
        config_class: What every `Config` derives from.
    """

    def __init__(self, kind: str, *, group: str, config_class: type[ComponentConfig]) -> None:
        super().__init__(kind, group=group)
        self.config_class = config_class

    def class_of(self, config: ComponentConfig) -> ClassT:
        """Returns the class that a component configuration belongs to.

        Raises:
            ValueError: As `name_of`.
        """
        return self._classes[self.name_of(config)]

    def name_of(self, config: ComponentConfig) -> str:
        """Returns the name of the class that a component configuration belongs to.

        A class that is only announced gets the name of its entry point. Of these, only those are imported that may be
        the one: from the package that defines the configuration.

        Raises:
            ValueError: No class that is registered or announced has this configuration.
        """
        for name, known in self._classes.items():
            if _config_of(known) is type(config):
                return name
        failures = ""
        for entry_point in self._candidates(type(config)):
            try:
                if _config_of(self._load(entry_point)) is type(config):
                    return entry_point.name
            except ValueError as error:
                failures += f" {error}"
        raise ValueError(
            f"No registered {self.kind} has the configuration {type(config).__qualname__}. Decorate the class that it "
            f"belongs to with @perceiver_io.register_{self.kind}(name). Known: {', '.join(self.names()) or 'none'}."
            + failures
        )

    def _candidates(self, config_class: type) -> Iterator[EntryPoint]:
        """Entry points that may announce the class of a configuration, those of its own module first."""
        module = config_class.__module__
        package = module.partition(".")[0]
        announced = sorted(
            entry_points(group=self.group), key=lambda entry_point: entry_point.module != module
        )
        for entry_point in announced:
            imported = entry_point.module in sys.modules
            if entry_point.name not in self._classes and (
                imported or entry_point.module.partition(".")[0] == package
            ):
                yield entry_point

    def _check(self, name: str, cls: ClassT) -> None:
        config = _config_of(cls)
        base = f"perceiver_io.{self.config_class.__name__}"
        if config is None:
            raise ValueError(
                f"The {self.kind} {name!r} needs a Config of its own, but {cls.__qualname__} does not define one. A "
                "configuration says by its class what is built: put a dataclass Config into the class that derives "
                f"from that of its parent, or from {base}."
            )
        if not issubclass(config, self.config_class):
            raise ValueError(
                f"{cls.__qualname__}.Config must derive from {base}, got the bases "
                f"{[parent.__qualname__ for parent in config.__bases__]}. The {self.kind} {name!r} is not registered."
            )
        for field in dataclasses.fields(config):
            if field.name in ("type", PROVIDED_BY):
                raise ValueError(
                    f"{cls.__qualname__}.Config has the field {field.name!r}, which files say of every {self.kind}. "
                    "Rename it."
                )
        others: list[type] = [*cls.__mro__[1:], *self._classes.values()]
        for other in others:
            if _config_of(other) is config and not _same(other, cls):
                raise ValueError(
                    f"The {self.kind} {name!r} needs a Config of its own, but {cls.__qualname__} has that of "
                    f"{other.__module__}.{other.__qualname__}. Give it one that derives from it."
                )


class TaskRegistry(Registry[ClassT]):
    """Names of tasks; a class that does not say its `name` gets the one it is registered under."""

    def _check(self, name: str, cls: Any) -> None:
        if not isinstance(getattr(cls, "model_class", None), type):
            raise ValueError(
                f"The task {name!r}, {cls.__qualname__}, does not say the class of its models. Declare model_class."
            )
        if "name" not in vars(cls):
            cls.name = name


class ProcessorRegistry(Registry[ClassT]):
    """Names of input processors, by which their settings are saved."""

    def name_of(self, cls: type) -> str:
        """Returns the name of a class.

        Raises:
            ValueError: Nobody registered or announced it.
        """
        for entry_point in entry_points(group=self.group):
            if entry_point.value == f"{cls.__module__}:{cls.__qualname__}" or announces(entry_point, cls):
                self.get(entry_point.name)
        for name, known in self.classes().items():
            if known is cls:
                return name
        raise ValueError(
            f"{cls.__qualname__} is no registered {self.kind}. Decorate it with perceiver_io.register_processor."
        )

    def _check(self, name: str, cls: Any) -> None:
        if missing := [
            part for part in ("prepare", "collate", "to_dict", "from_dict") if not hasattr(cls, part)
        ]:
            raise ValueError(f"The processor {name!r}, {cls.__qualname__}, lacks {', '.join(missing)}.")


def _same(first: type, second: type) -> bool:
    """Whether two classes are one; a module that is run again (a notebook cell, a reload) makes its classes anew."""
    return (first.__module__, first.__qualname__) == (second.__module__, second.__qualname__)


def _config_of(cls: type) -> type | None:
    """The Config that a class defines itself; what it inherits belongs to its parent."""
    config = vars(cls).get("Config")
    return config if isinstance(config, type) else None


ADAPTERS: ComponentRegistry[Any] = ComponentRegistry(
    "adapter", group="perceiver_io.adapters", config_class=ComponentConfig
)
DECODERS: ComponentRegistry[Any] = ComponentRegistry(
    "decoder", group="perceiver_io.decoders", config_class=DecoderConfig
)
PROCESSORS: ProcessorRegistry[Any] = ProcessorRegistry("processor", group="perceiver_io.processors")
TASKS: TaskRegistry[Any] = TaskRegistry("task", group="perceiver_io.tasks")


def register_adapter(name: str) -> Callable[[ClassT], ClassT]:
    """Registers an `InputAdapter` under the name that configurations use for it.

    Raises:
        ValueError: Another class has the name, or the class has no `Config` of its own that is a `ComponentConfig`.
    """
    return ADAPTERS.register(name)


def register_decoder(name: str) -> Callable[[ClassT], ClassT]:
    """Registers a `Decoder` under the name that configurations use for it.

    Raises:
        ValueError: Another class has the name, or the class has no `Config` of its own that is a `DecoderConfig`.
    """
    return DECODERS.register(name)


def register_processor(name: str) -> Callable[[ClassT], ClassT]:
    """Registers an `InputProcessor` under the name that saved settings use for it.

    Raises:
        ValueError: Another class has the name, or the class lacks a method of `InputProcessor`.
    """
    return PROCESSORS.register(name)


def register_task(name: str) -> Callable[[ClassT], ClassT]:
    """Registers a task under the name that the command line uses for it, which becomes its `name` if it has none.

    Raises:
        ValueError: Another class has the name.
    """
    return TASKS.register(name)
