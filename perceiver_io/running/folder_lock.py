"""One run at a time in a folder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from perceiver_io.config_json import read_json_object

__all__ = ["locked"]


@contextmanager
def locked(file: Path) -> Iterator[Callable[[], bool]]:
    """Holds a lock for the block, by a file that stays afterwards.

    The lock is the operating system's: it vanishes with the process that holds it, however that ends. The holder may
    remove the file, and the folder with it, within the block: who waits for the lock makes both anew.

    Args:
        file: The file. Who holds it is written there. Its folder is made if need be.

    Returns:
        What says whether the lock is still that of the file of this name.

    Raises:
        ValueError: Another process holds it.
        OSError: The file cannot be written.
    """
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        holder = _holder(file)
        lock: BaseFileLock = FileLock(file, timeout=0)
        try:
            lock.acquire()
        except FileNotFoundError:
            continue  # the folder was removed since
        except Timeout as error:
            raise ValueError(
                f"The folder {file.parent} is being written by {holder}. Wait until that ends, or choose another "
                "folder."
            ) from error
        if _is_of(lock, file):
            break
        lock.release()  # the file was removed since, and another process may hold the next one
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
        yield lambda: _is_of(lock, file)
    finally:
        lock.release()


def _is_of(lock: BaseFileLock, file: Path) -> bool:
    """Whether a lock that is held is that of the file that has its name now."""
    descriptor = lock._context.lock_file_fd
    try:
        return descriptor is not None and os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


def _holder(file: Path) -> str:
    try:
        content = read_json_object(file)
        return f"process {content['pid']} on {content['host']} since {content['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
