"""Two runs never write to one folder; what a killed one leaves keeps nobody out."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from perceiver_io.running import RunFolder, runner
from perceiver_io.running.folder_lock import locked

from . import toy_task

HOLDER = """
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("folder_lock", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
with module.locked(pathlib.Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    from perceiver_io.running import folder_lock

    arguments = [str(folder_lock.__file__), str(folder / ".perceiver-io-run.lock")]
    process = subprocess.Popen([sys.executable, "-c", HOLDER, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_second_run_is_told_who_is_there(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    (run.checkpoints / ".partial-checkpoint-9").mkdir(parents=True)
    run.manifest.add(["recipe.yaml", "checkpoints/"])
    run.recipe_file.write_text(toy_task.recipe().to_yaml(task="votes"))
    with holder(run.path) as process:
        who = f"process {process.pid} on {socket.gethostname()} since 20"
        for changes in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(ValueError, match=f"is being written by {who}.*Wait"):
                runner.train(toy_task.Votes(), toy_task.recipe(run.path, **changes))
            assert os.listdir(run.checkpoints) == [".partial-checkpoint-9"]


def test_a_new_folder_is_held_while_its_data_is_read(tmp_path: Path) -> None:
    class Two(toy_task.Votes):
        def data(self, recipe: toy_task.VoteRecipe) -> None:  # type: ignore[override]
            runner.train(toy_task.Votes(), recipe)

    with pytest.raises(ValueError, match=f"is being written by process {os.getpid()} on"):
        runner.train(Two(), toy_task.recipe(tmp_path / "run"))
    assert os.listdir(tmp_path) == []


def test_the_lock_of_a_killed_process_keeps_nobody_out(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    with holder(run.path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (run.path / ".perceiver-io-run.lock").read_text()
        with run.held():
            pass
    metrics = runner.train(toy_task.Votes(), toy_task.recipe(run.path, max_steps=1, resume=True))
    assert metrics["steps"] == 1


def test_the_processes_of_one_training_are_one_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with run.held(is_main_process=True), run.held(is_main_process=False):
        assert run.path.is_dir()


def test_a_lock_whose_file_was_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run removes its new folder just as the second one has opened the lock's file."""
    file = tmp_path / "run" / ".perceiver-io-run.lock"
    acquire = FileLock.acquire
    came: list[int] = []

    def acquire_late(lock: FileLock, *args: Any, **kwargs: Any) -> Any:
        held = acquire(lock, *args, **kwargs)
        came.append(1)
        if len(came) == 1:
            file.unlink()
            file.parent.rmdir()
        return held

    monkeypatch.setattr(FileLock, "acquire", acquire_late)
    with locked(file):
        assert file.is_file()
        with pytest.raises(ValueError, match=f"is being written by process {os.getpid()}"), locked(file):
            pass


def test_a_run_that_ends_leaves_the_folder_to_the_next(tmp_path: Path) -> None:
    first, second, third = (RunFolder(tmp_path / "run") for _ in range(3))
    with ExitStack() as later:
        with first.held():
            first._discard()
            later.enter_context(second.held())
        with pytest.raises(ValueError, match="is being written"), third.held():
            pass


def test_a_new_folder_is_removed_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = FileLock.release
    left: list[list[str]] = []

    def look(lock: FileLock, *args: Any, **kwargs: Any) -> None:
        left.append(os.listdir(tmp_path))
        release(lock, *args, **kwargs)

    monkeypatch.setattr(FileLock, "release", look)
    with RunFolder(tmp_path / "run").held():
        pass
    assert left[0] == []
