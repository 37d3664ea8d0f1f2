"""`perceiver-io --import`: adapters and tasks of a script of one's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perceiver_io.cli import main
from perceiver_io.registry import ADAPTERS, TASKS

SCRIPT = Path(__file__).resolve().parent.parent / "docs" / "examples" / "my_task.py"
TRAIN = "--num-maps 40 --max-steps 1 --validation-fraction 0 --device cpu --report-to none".split()


@contextmanager
def new_process() -> Iterator[None]:
    """What is registered and imported within the block is forgotten after it."""
    with pytest.MonkeyPatch.context() as patch:
        for registry in (ADAPTERS, TASKS):
            patch.setattr(registry, "_classes", dict(registry.classes()))
        patch.setattr(sys, "path", list(sys.path))
        yield
    for name in [name for name in sys.modules if name.startswith("juggling")]:
        del sys.modules[name]


def run(*arguments: str) -> int:
    with new_process():
        return main(arguments)


@pytest.fixture
def script(tmp_path: Path) -> str:
    """A task that reads its weather from a module beside it."""
    file = tmp_path / "juggling_script.py"
    text = SCRIPT.read_text(encoding="utf-8").replace('"weather-stations"', '"juggling"')
    file.write_text(
        text.replace("import perceiver_io as pio", "import juggling_beside\nimport perceiver_io as pio")
    )
    (tmp_path / "juggling_beside.py").write_text("")
    return str(file)


@pytest.mark.skipif(not SCRIPT.is_file(), reason="docs/ is not beside tests/")
def test_every_command_works_with_a_script(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("map.json").write_text(json.dumps([[0.1, -0.2, 11.5], [-0.4, 0.9, 3.0]]))
    commands = [
        ["train", "juggling", "--output-dir", "run", *TRAIN],
        ["evaluate", "run"],
        ["predict", "run", "map.json"],
        ["attention", "run", "map.json", "-o", "maps.png"],
        ["info", "run"],
    ]
    for command in commands:
        assert run(*command) == 2
        assert "'juggling'" in capsys.readouterr().err
        assert run(*command, "--import", script) == 0, capsys.readouterr().err
        capsys.readouterr()
    # A run names no file that is imported: what a folder says is never executed.
    assert "script" not in Path("run/recipe.yaml").read_text() + Path("run/config.json").read_text()


def test_a_file_is_imported_once(tmp_path: Path) -> None:
    file, count = tmp_path / "juggling_count.py", tmp_path / "count"
    file.write_text(f"with open({str(count)!r}, 'a') as file:\n    file.write('x')\n")
    assert run("info", "--import", str(file), "--import", f"{tmp_path}/../{tmp_path.name}/{file.name}") == 0
    assert count.read_text() == "x"


def test_a_module_is_imported_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "juggling_module.py").write_text("open('done', 'w').close()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run("info", "--import", "juggling_module") == 0
    assert (tmp_path / "done").exists()


def test_a_folder_without_code_is_no_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "juggling_data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run("info", "--import", "juggling_data") == 2
    assert (
        "--import juggling_data: ImportError: that is a folder without an __init__.py"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("juggling_missing.py", None, "FileNotFoundError: there is no Python file"),
        ("no/juggling.py", None, "there is no Python file"),
        ("no_such_juggling", None, "No module named 'no_such_juggling'"),
        ("juggling_raises.py", "raise KeyError('oops')", "KeyError: 'oops'"),
        ("juggling_exits.py", "raise SystemExit(3)", "SystemExit: 3"),
        ("juggling_syntax.py", "def", "SyntaxError: invalid syntax"),
        ("json.py", "", "another module 'json' already. Rename the file"),
    ],
)
def test_what_cannot_be_imported(
    name: str,
    content: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_text(content)
    assert run("info", "--import", name) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"perceiver-io: error: --import {name}: ") and message in error
