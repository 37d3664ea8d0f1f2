"""`perceiver-io … | head` ends quietly."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from perceiver_io.cli import main


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
