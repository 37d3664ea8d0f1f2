"""One run at a time in a folder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

__all__ = ["locked"]


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds a lock for the block, by a file that stays afterwards.

    The lock is the operating system's: it vanishes with the process that holds it, however that ends.

    Args:
        file: The file, in a folder that exists. Who holds it is written there.

    Raises:
        ValueError: Another process holds it.
        OSError: The file cannot be written.
    """
    holder = _holder(file)
    lock: BaseFileLock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"The folder {file.parent} is being written by {holder}. Wait until that ends, or choose another folder."
        ) from error
    try:
        if not isinstance(
            lock, SoftFileLock
        ):  # where a file system has no locks, filelock writes there itself
            own = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now().astimezone().isoformat(timespec="seconds"),
            }
            file.write_text(json.dumps(own) + "\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def _holder(file: Path) -> str:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return f"process {content['pid']} on {content['host']} since {content['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
