"""What is refused before it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from perceiver_io.files import check_outputs


def test_outputs_that_harm_nothing(tmp_path: Path) -> None:
    (tmp_path / "old.png").touch()
    check_outputs(tmp_path, ["a.png", "old.png"], [tmp_path / "b" / "a.png"])
    check_outputs(tmp_path / "new", ["a.png"], [tmp_path / "a.png"])
    assert [file.name for file in tmp_path.iterdir()] == ["old.png"]


def test_outputs_that_would_replace_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for name, file in (
        ("a.png", "a.png"),
        ("link.png", "a.png"),
        ("a.png", "link.png"),
        ("a.png", "x/../a.png"),
    ):
        with pytest.raises(ValueError, match=rf"{name} is an input, and would be overwritten"):
            check_outputs(tmp_path, [name], [file])
    with pytest.raises(ValueError, match=r"Several results would be called b\.png"):
        check_outputs(tmp_path, ["b.png", "c.png", "b.png"], [])
    with pytest.raises(ValueError, match=r"a\.png is a file"):
        check_outputs(tmp_path / "a.png", ["b.png"], [])
