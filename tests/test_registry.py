"""Registries of plug-ins, on registries of their own."""

from importlib.metadata import EntryPoint
from typing import Any

import pytest

import perceiver_io.registry
from perceiver_io import ComponentConfig
from perceiver_io.adapters.image import ImageAdapter
from perceiver_io.registry import ADAPTERS, DECODERS, ComponentRegistry, TaskRegistry, register_decoder
from perceiver_io.vector_decoders import ClassificationDecoder, PooledClassificationDecoder


def registry() -> ComponentRegistry[Any]:
    return ComponentRegistry("adapter", group="perceiver_io.no_such_group", config_class=ComponentConfig)


class First:
    class Config(ComponentConfig):
        pass


class Second:
    class Config(ComponentConfig):
        pass


def test_registers_and_looks_up() -> None:
    names = registry()
    assert names.register("first")(First) is First
    assert names.get("first") is First
    assert names.names() == ["first"]
    assert names.name_of(First.Config()) == "first"
    assert names.class_of(First.Config()) is First


def test_a_taken_name_is_refused() -> None:
    names = registry()
    names.register("first")(First)
    with pytest.raises(ValueError, match=r"'first' is taken by .*First\. Register Second under another name"):
        names.register("first")(Second)
    assert names.get("first") is First


def test_a_module_that_runs_again_replaces_its_classes() -> None:
    names = registry()
    names.register("first")(First)
    again = type("First", (), {"__module__": First.__module__, "Config": First.Config})
    names.register("first")(again)
    assert names.get("first") is again


def test_unknown_names_list_the_known_ones() -> None:
    names = registry()
    with pytest.raises(ValueError, match=r"There is no adapter 'lidar'\. Known: none"):
        names.get("lidar")
    names.register("second")(Second)
    names.register("first")(First)
    with pytest.raises(ValueError, match=r"Known: first, second\..*group 'perceiver_io.no_such_group'"):
        names.get("lidar")


def test_configurations_of_nobody_are_refused() -> None:
    names = registry()
    names.register("first")(First)
    with pytest.raises(ValueError, match=r"No registered adapter has the configuration Second\.Config"):
        names.name_of(Second.Config())


def test_extended_leaves_the_original_alone() -> None:
    names = registry()
    names.register("first")(First)
    extended = names.extended({"second": Second})
    assert extended.names() == ["first", "second"]
    assert extended.get("second") is Second
    assert names.names() == ["first"]


def test_only_the_entry_point_that_is_asked_for_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "perceiver_io.no_such_group"
    installed = [
        EntryPoint("good", "perceiver_io.adapters.image:ImageAdapter", group),
        EntryPoint("broken", "no_such_module:Nothing", group),
    ]

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [point for point in installed if point.group == group and name in (None, point.name)]

    monkeypatch.setattr(perceiver_io.registry, "entry_points", entry_points)
    names = registry()
    assert names.names() == ["broken", "good"]
    assert names.get("good") is ImageAdapter
    with pytest.raises(
        ValueError, match=r"'broken' cannot be imported: .*no_such_module:Nothing.*ModuleNotFound"
    ):
        names.get("broken")


def test_a_registered_class_comes_before_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("first", "no_such_module:Nothing", "perceiver_io.no_such_group")
    monkeypatch.setattr(perceiver_io.registry, "entry_points", lambda **_: [point])
    names = registry()
    names.register("first")(First)
    assert names.get("first") is First


class Child(First):
    pass


class Borrower:
    Config = First.Config


class Alias(First):
    Config = First.Config


class NoConfig:
    pass


class ForeignConfig:
    class Config:
        pass


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (
            Child,
            "'other' needs a Config of its own, but Child does not define one.* derives from that of its parent",
        ),
        (NoConfig, "NoConfig does not define one.*or from perceiver_io.ComponentConfig"),
        (Borrower, r"'other' needs a Config of its own, but Borrower has that of .*First\. Give it one"),
        (Alias, r"but Alias has that of .*First"),
        (
            ForeignConfig,
            r"ForeignConfig.Config must derive from perceiver_io.ComponentConfig, got the bases \['obj",
        ),
    ],
)
def test_a_configuration_belongs_to_one_class(cls: type, message: str) -> None:
    names = registry()
    names.register("first")(First)
    for add in (lambda: names.register("other")(cls), lambda: names.extended({"other": cls})):
        with pytest.raises(ValueError, match=message):
            add()
    assert names.names() == ["first"]


def test_classes_that_are_passed_must_differ_in_their_configurations_too() -> None:
    with pytest.raises(ValueError, match=r"Borrower has that of .*First"):
        registry().extended({"a": First, "b": Borrower})
    passed = registry().extended({"a": First, "b": First})  # one class of two names is no riddle
    assert passed.class_of(First.Config()) is First


@pytest.mark.parametrize("cls", [First, NoConfig])
def test_decoders_say_what_they_need(cls: type) -> None:
    with pytest.raises(ValueError, match=r"Config.*perceiver_io\.DecoderConfig"):
        register_decoder("no-decoder")(cls)
    assert "no-decoder" not in DECODERS.names()


def test_a_task_that_has_no_name_gets_the_one_it_is_registered_under() -> None:
    names: TaskRegistry[Any] = TaskRegistry("task", group="perceiver_io.no_such_group")

    class Nameless:
        model_class = object

    class Named:
        name = "own"
        model_class = object

    class Child(Named):
        pass

    for name, cls in {"given": Nameless, "other": Named, "child": Child}.items():
        names.register(name)(cls)
    assert (Nameless.name, Named.name, Child.name) == ("given", "own", "child")  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="Declare model_class"):
        names.register("no-model")(type("NoModel", (), {}))


def test_what_the_package_brings() -> None:
    assert ADAPTERS.get("image") is ImageAdapter
    assert DECODERS.get("classification") is ClassificationDecoder
    assert DECODERS.get("pooled-classification") is PooledClassificationDecoder
