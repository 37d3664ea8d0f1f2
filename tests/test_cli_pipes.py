"""What is said to pipes that nobody reads, full disks, odd terminals and signals: a line at most, and the status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perceiver_io_command
from perceiver_io.cli import main
from perceiver_io.running.interrupt import Terminated


@pytest.fixture
def unread() -> Iterator[int]:
    """The end of a pipe that nobody reads from."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    "arguments", [["info"], ["--help"], ["train", "--help"], ["train", "image-classification", "--help"]]
)
@pytest.mark.parametrize("buffering", [1, -1])
def test_what_nobody_reads_is_no_error(
    arguments: list[str], buffering: int, unread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.dup(unread), "w", buffering=buffering) as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main(arguments) == 141


def test_errors_that_nobody_reads(unread: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.dup(unread), "w", buffering=1) as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        assert main(["evaluate", "missing"]) == 141


def test_the_process_ends_without_a_word(unread: int) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "perceiver_io.cli", "info"], stdout=unread, stderr=subprocess.PIPE, check=False
    )
    assert result.returncode == 141
    assert result.stderr == b""


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    program = [sys.executable, "-m", "perceiver_io.cli", *arguments]
    return subprocess.run(program, stderr=subprocess.PIPE, check=False, **options)


def test_a_disk_that_is_full_of_results() -> None:
    with open("/dev/full", "w") as full:
        result = command("info", stdout=full)
    assert result.returncode == 2
    assert result.stderr == b"perceiver-io: error: The results cannot be printed: No space left on device\n"


VERSION = [sys.executable, "-c", "import perceiver_io_command as c; raise SystemExit(c.main())", "--version"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_disk_that_is_full_of_a_version(unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            VERSION,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert result.returncode == 2
    assert result.stderr == b"perceiver-io: error: The results cannot be printed: No space left on device\n"


def test_help_that_cannot_be_printed_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """argparse passes over the error of a stream that is not buffered."""
    with open("/dev/full", "w", buffering=1) as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert main(["--help"]) == 2
    assert capsys.readouterr().err.endswith("No space left on device\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, tmp_path: Path) -> None:
    """What is opened next is not taken for stdout, and nothing is said that has no place."""
    script = (
        "import sys, perceiver_io_command as command; sys.argv = ['perceiver-io', '--version']; "
        "status = command.main(); sys.exit(status if open('next', 'w').fileno() > 2 else 70)"
    )
    result = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result
    assert result.stdout.startswith(b"perceiver-io ") is (closed in ("<&-", "2>&-"))
    assert result.stderr == b""


def test_names_that_are_no_text_on_a_terminal_that_knows_ascii(tmp_path: Path) -> None:
    name = os.fsdecode(b"sch\xc3\xb6n-\xff.png")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    result = command("predict", str(tmp_path / name), "x", env=environment, stdout=subprocess.PIPE)
    assert result.returncode == 2
    assert result.stderr.count(b"\n") == 1 and result.stderr.isascii() and b"sch" in result.stderr


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals(
    number: int, status: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def installation(*_: object) -> None:
        os.kill(os.getpid(), number)
        signal.pause()

    monkeypatch.setattr(sys.modules["perceiver_io.cli.main"], "installation", installation)
    # Whoever runs the tests in the background may have them ignore Ctrl-C.
    handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    previous = signal.signal(number, handler)
    try:
        assert main(["info"]) == status
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, previous)
    assert capsys.readouterr().err == f"perceiver-io: {word}.\n"


@pytest.mark.parametrize(
    ("error", "status", "word"), [(KeyboardInterrupt, 130, "interrupted"), (Terminated, 143, "terminated")]
)
def test_signals_before_the_work(
    error: type[BaseException], status: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def interrupted() -> None:
        raise error

    monkeypatch.setattr(sys.modules["perceiver_io.cli.main"], "_parser", interrupted)
    assert main(["info"]) == status
    assert capsys.readouterr().err == f"perceiver-io: {word}.\n"


def test_ctrl_c_during_the_imports(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupting:
        def find_spec(self, name: str, *_: object) -> None:
            if name.startswith("perceiver_io.cli"):
                raise KeyboardInterrupt

    for name in [name for name in sys.modules if name.startswith("perceiver_io.cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    monkeypatch.setattr(sys, "argv", ["perceiver-io", "info"])
    assert perceiver_io_command.main() == 130
    assert capsys.readouterr().err == "perceiver-io: interrupted.\n"
