"""Two processes that train together on a processor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["in_two_processes"]

ROOT = str(Path(__file__).parents[1])  # for the modules beside this one, wherever the tests are started


def in_two_processes(
    program: Sequence[str], arguments: Sequence[str], *, status: int = 0, more_tries: int = 0
) -> None:
    """Runs a program of Python in two processes that know each other, as torchrun starts them.

    Args:
        program: A script, or "-m" and a module.
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
    processes = [
        subprocess.Popen(
            [sys.executable, *program, *arguments],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    if more_tries and -signal.SIGSEGV in codes:
        in_two_processes(program, arguments, status=status, more_tries=more_tries - 1)
        return
    assert codes == [status] * 2, "\n\n".join([str(codes), *outputs])
