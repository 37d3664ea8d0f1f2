"""Two processes that train together on a processor."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["in_two_processes"]

ROOT = str(Path(__file__).parents[1])  # for the modules beside this one, wherever the tests are started


def in_two_processes(
    program: Sequence[str], arguments: Sequence[str], *, status: int = 0, more_tries: int = 0
) -> None:
    """Runs a program of Python in two processes that know each other, as torchrun starts them.

    Args:
        program: "-m" and a module, or "-c" and code.
        arguments: Its arguments.
        status: The exit status that both must have.
        more_tries: How often to try again where a process ends by a fault of memory. Once in some dozen runs a thread
            of gloo does that, in PyTorch's own code.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.two_ranks", *program, *arguments],
        env={**os.environ, **shared},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output = process.communicate(timeout=200)[0]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output
    codes = json.loads(output.splitlines()[-1])
    if more_tries and -signal.SIGSEGV in codes:
        in_two_processes(program, arguments, status=status, more_tries=more_tries - 1)
        return
    assert codes == [status] * 2, f"{codes}\n\n{output}"
