"""The `perceiver-io` command, beside the package: to say a version, nothing that takes seconds need be imported."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable

__all__ = ["BAD_INPUT", "INTERRUPTED", "main", "printing"]

BAD_INPUT = 2
INTERRUPTED = 130
_NO_READER = 141  # that of a process that SIGPIPE ended


def main() -> int:
    """Runs the command, and returns its exit status."""
    if sys.argv[1:] == ["--version"]:
        return printing(_say_version)
    try:
        from perceiver_io.cli import main

        return main()
    except KeyboardInterrupt:
        print("perceiver-io: interrupted.", file=sys.stderr)
        return INTERRUPTED


def printing(run: Callable[[], int]) -> int:
    """Runs what prints, whatever stdout and stderr are: closed, full, pipes that nobody reads, terminals without UTF-8.

    Args:
        run: Returns an exit status. An `OSError` that it raises is taken for one of printing.

    Returns:
        The status, or 141 if nobody reads what is printed, or 2 if it cannot be printed.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names need not be text, and terminals need not know all of it.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = run()
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # as in `perceiver-io info | head -1`
        _give_up_streams()
        return _NO_READER
    except OSError as error:
        _give_up_streams()
        with contextlib.suppress(OSError):
            reason = error.strerror or str(error)
            print(f"perceiver-io: error: The results cannot be printed: {reason}", file=sys.stderr)
        return BAD_INPUT


def _open_closed_streams() -> None:
    """Opens what was closed (`>&-`) to nowhere: the next file to be opened would have the number of stdout."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        number = os.open(os.devnull, os.O_RDWR)
        while number <= 2:
            number = os.dup(number)
        os.close(number)
        sys.stdin = sys.stdin or open(0)
        sys.stdout = sys.stdout or open(1, "w")
        sys.stderr = sys.stderr or open(2, "w")


def _give_up_streams() -> None:
    """Sends what cannot be printed to nowhere: Python would flush once more at its end, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _say_version() -> int:
    from importlib.metadata import version

    print(f"perceiver-io {version('perceiver-io-toolkit')}")
    return 0
