"""The site: every public name has its place in the reference, every task has its page, every page its place."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import perceiver_io
import perceiver_io.tasks
from perceiver_io.registry import ADAPTERS, DECODERS, PROCESSORS, TASKS, Registry
from perceiver_io.running import TrainableTask

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
REFERENCE = sorted((DOCS / "reference").glob("*.md"))

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not beside tests/")

PUBLIC = ["", ".adapters", ".causal", ".cli", ".data", ".published", ".running", ".testing"]
"""Packages whose names are public, and so are those of every task."""


def public_modules() -> Iterator[ModuleType]:
    for name in PUBLIC:
        yield importlib.import_module(f"perceiver_io{name}")
    for found in pkgutil.iter_modules(perceiver_io.tasks.__path__):
        yield importlib.import_module(f"perceiver_io.tasks.{found.name}")


def named() -> list[str]:
    """What the pages of the reference name, in order."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in REFERENCE)
    return re.findall(r"^::: ([\w.]+)$", text, flags=re.MULTILINE)


def found(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def identity(name: str, value: Any) -> tuple[str, ...]:
    """The same for every path that leads to one thing."""
    if inspect.isclass(value) or inspect.isfunction(value):
        return (value.__module__, value.__qualname__)
    return (name.rpartition(".")[2], str(id(value)))


def test_every_public_name_is_in_the_reference_once() -> None:
    listed = Counter(identity(name, found(name)) for name in named())
    assert {name: count for name, count in listed.items() if count > 1} == {}
    public = {
        f"{module.__name__}.{name}": identity(name, getattr(module, name))
        for module in public_modules()
        for name in getattr(module, "__all__", ())
    }
    assert [path for path, one in public.items() if one not in listed] == []


@pytest.mark.parametrize("registry", [ADAPTERS, DECODERS, PROCESSORS], ids=lambda registry: registry.kind)
def test_everything_registered_is_in_the_reference(registry: Registry[Any]) -> None:
    """The project's own; a plug-in, or a class of another test, is documented elsewhere."""
    listed = {identity(name, found(name)) for name in named()}
    ours = [
        registry.get(one.name)
        for one in entry_points(group=registry.group)
        if one.value.startswith("perceiver_io.")
    ]
    assert ours and [cls for cls in ours if identity(cls.__name__, cls) not in listed] == []


def test_what_the_reference_names_is_public() -> None:
    for name in named():
        module, _, attribute = name.rpartition(".")
        assert attribute in importlib.import_module(module).__all__, name


def test_docstrings_say_what_is_returned_without_a_type() -> None:
    """What stands before a colon would be shown as a type."""
    bad = []
    for name in named():
        value = found(name)
        members = [value] if not inspect.isclass(value) else [value, *vars(value).values()]
        for member in members:
            text = inspect.getdoc(member) or ""
            for line in re.findall(r"^(?:Returns|Yields):\n +(.*)$", text, flags=re.MULTILINE):
                if re.match(r"[^:]*:( |$)", line):
                    bad.append((name, line))
    assert bad == []


@pytest.mark.parametrize("name", TASKS.names())
def test_every_task_has_its_page(name: str) -> None:
    task = TASKS.get(name)
    page = DOCS / f"{'tables' if name.startswith('tabular-') else name}.md"
    text = page.read_text(encoding="utf-8")
    assert task.model_class.__name__ in text
    assert "perceiver-io predict " in text
    if issubclass(task, TrainableTask):
        embedded = getattr(task.recipe_class, "embedded", ())
        assert any(f"perceiver-io train {name} --dataset {one}" in text for one in embedded) or not embedded
        assert "perceiver-io evaluate " in text
        assert [one for one in embedded if f"`{one}`" not in text and f"--dataset {one}" not in text] == []


def test_every_page_has_its_place_once() -> None:
    """mkdocs warns of pages without one, but not of pages with two."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    places = Counter(
        re.findall(r"[\w/-]+\.md", text[text.index("\nnav:") : text.index("\nmarkdown_extensions:")])
    )
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert places == dict.fromkeys(pages, 1)


def test_the_picture_of_the_first_page_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overview = importlib.import_module("benchmarks.overview")
    monkeypatch.setattr("sys.argv", ["overview.py", "--folder", str(tmp_path)])
    overview.main()
    for name in ("overview-light.svg", "overview-dark.svg"):
        drawn, kept = (
            len(re.findall("<path", (folder / name).read_text(encoding="utf-8")))
            for folder in (tmp_path, DOCS / "images")
        )
        assert drawn == kept
