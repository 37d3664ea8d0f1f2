from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from perceiver_io import ClassificationDecoder, PerceiverIO, PerceiverIOConfig
from perceiver_io.adapters import FeaturesAdapter
from perceiver_io.files import (
    PARTIAL,
    check_outputs,
    make_folder,
    remove,
    remove_empty,
    write_error,
    writing,
    writing_into,
)
from perceiver_io.testing.common import tiny_encoder


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_file_appears_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with writing(tmp_path / "a.txt") as path:
        assert path.parent == tmp_path and path.name.startswith(PARTIAL) and path.suffix == ".txt"
        path.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert contents(tmp_path) == {"a.txt": "new"}


@pytest.mark.parametrize(
    "error", [full(), ValueError("bad"), KeyboardInterrupt(), SafetensorError("broken")], ids=repr
)
def test_whatever_fails_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a.txt").write_text("old")
    # What cannot be written is explained, whoever says so; all else is left as it is.
    expected = OSError if isinstance(error, (OSError, SafetensorError)) else type(error)
    with pytest.raises(expected) as caught, writing(tmp_path / "a.txt") as path:
        path.write_text("half")
        raise error
    assert contents(tmp_path) == {"a.txt": "old"}
    assert (caught.value is error) == (expected is not OSError)
    if expected is OSError:
        assert "make room or choose another folder" in str(caught.value)


def test_files_have_the_mode_of_the_umask(tmp_path: Path) -> None:
    with writing(tmp_path / "a.safetensors") as path:
        save_file({"x": torch.zeros(1)}, path)
        path.chmod(0o600)  # as some versions of it do
    with writing_into(tmp_path / "folder") as path:
        (path / "deep").mkdir()
        (path / "deep" / "b").touch(0o600)
    umask = os.umask(0o022)
    os.umask(umask)
    for file in (tmp_path / "a.safetensors", tmp_path / "folder" / "deep" / "b"):
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask


def test_saved_models_have_the_mode_of_the_umask(tmp_path: Path) -> None:
    """safetensors 0.5 and later lets only the owner read what it writes."""
    adapters = {"x": FeaturesAdapter.Config(num_features=2)}
    outputs = {"label": ClassificationDecoder.Config(num_classes=2)}
    (tmp_path / "mine.safetensors").touch(0o600)
    PerceiverIO(PerceiverIOConfig(inputs=adapters, encoder=tiny_encoder(), outputs=outputs)).save_pretrained(
        tmp_path
    )
    mine = tmp_path / "mine.safetensors"
    assert mine.stat().st_mode & 0o777 == 0o600
    mine.unlink()
    assert len({file.stat().st_mode for file in tmp_path.iterdir()}) == 1, list(tmp_path.iterdir())


def test_what_is_renamed_is_on_the_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        calls.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        calls.append(f"{source.name} -> {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    with writing(tmp_path / "a.txt") as path:
        path.write_text("new")
    assert calls == [".partial-a.txt", ".partial-a.txt -> a.txt", tmp_path.name]


def test_folders_that_were_made_are_removed(tmp_path: Path) -> None:
    made = make_folder(tmp_path / "a" / "b" / "c")
    (tmp_path / "a" / "mine").touch()
    assert [path.name for path in made] == ["c", "b", "a"]
    remove_empty(made)
    assert not (tmp_path / "a" / "b").exists() and (tmp_path / "a" / "mine").exists()
    assert make_folder(tmp_path / "a") == []


def test_a_full_disk_keeps_its_number(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=f"Writing to {tmp_path} failed: No space left on device") as caught,
        writing(tmp_path / "a.txt"),
    ):
        raise full()
    assert caught.value.errno == errno.ENOSPC


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / f"{PARTIAL}a.txt").write_text("half")
    with writing(tmp_path / "a.txt") as path:
        assert not path.exists()
        path.write_text("whole")
    assert contents(tmp_path) == {"a.txt": "whole"}


@pytest.mark.parametrize("name", ["folder", "pipe", "missing/a.txt", ""])
def test_only_a_file_in_a_folder_can_be_written(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    message = "There is no folder missing" if "missing" in name else "is not a file that can be written"
    with pytest.raises(ValueError, match=message), writing(name):
        raise AssertionError
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]


def test_files_are_moved_into_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "kept.txt").write_text("kept")
    with writing_into(tmp_path) as folder:
        (folder / "a.txt").write_text("new")
        (folder / "b.txt").write_text("new too")
        assert (tmp_path / "a.txt").read_text() == "old" and not (tmp_path / "b.txt").exists()
    assert contents(tmp_path) == {"a.txt": "new", "b.txt": "new too", "kept.txt": "kept"}


def test_the_folder_to_move_into_is_made(tmp_path: Path) -> None:
    with writing_into(tmp_path / "new" / "folder") as folder:
        (folder / "a.txt").write_text("a")
    assert contents(tmp_path / "new" / "folder") == {"a.txt": "a"}


@pytest.mark.parametrize("error", [full(), KeyboardInterrupt()], ids=repr)
def test_of_several_files_none_is_left_when_one_fails(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(type(error)), writing_into(tmp_path) as folder:
        (folder / "a.txt").write_text("new")
        (folder / "b.txt").write_text("half")
        raise error
    assert contents(tmp_path) == {"a.txt": "old"}


def test_removing(tmp_path: Path) -> None:
    (tmp_path / "folder" / "in it").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "kept").touch()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    for name in ("folder", "disk/kept/under a file", "file", "link", "missing"):
        remove(tmp_path / name)
    assert os.listdir(tmp_path) == ["disk"] and os.listdir(tmp_path / "disk") == ["kept"]


def test_what_torch_says_of_a_full_disk_is_explained(tmp_path: Path) -> None:
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 81280 vs 81168")
    assert "failed: No space left on device, probably ([enforce fail" in str(write_error(tmp_path, error))


def test_outputs_that_harm_nothing(tmp_path: Path) -> None:
    (tmp_path / "old.png").touch()
    check_outputs(tmp_path, ["a.png", "old.png"], [tmp_path / "b" / "a.png"], overwrite=True)
    check_outputs(tmp_path / "new", ["a.png"], [tmp_path / "a.png"], overwrite=True)
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
            check_outputs(tmp_path, [name], [file], overwrite=True)
    with pytest.raises(ValueError, match=r"a\.png exists, and is not replaced.*--overwrite"):
        check_outputs(tmp_path, ["b.png", "a.png"], ["c.png"], overwrite=False)
    check_outputs(tmp_path, ["b.png"], ["c.png"], overwrite=False)
    with pytest.raises(ValueError, match=r"Several results would be called b\.png"):
        check_outputs(tmp_path, ["b.png", "c.png", "b.png"], [], overwrite=True)
    with pytest.raises(ValueError, match=r"a\.png is a file"):
        check_outputs(tmp_path / "a.png", ["b.png"], [], overwrite=True)
