"""Ctrl-C and SIGTERM during training: finish the step, save, then stop; never stop within a write."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["InterruptGuard", "Terminated", "terminating"]


class Terminated(KeyboardInterrupt):
    """SIGTERM came, as clusters send it some time before they kill a process."""


@contextmanager
def terminating() -> Iterator[None]:
    """Raises `Terminated` where SIGTERM arrives, so that what is half written goes as with Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pid = os.getpid()

    def stop(signal_number: int, frame: FrameType | None) -> None:
        if os.getpid() != pid:  # a forked data loading process
            os._exit(128 + signal_number)
        raise Terminated

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class InterruptGuard:
    """Catches SIGINT and SIGTERM while it is entered.

    The first one is noted in `requested`, so that training can stop at the end of a step. The next one raises
    KeyboardInterrupt at once (`Terminated` after SIGTERM), or, within `held_back`, at the end of it.

    Args:
        immediate: Raise at the first one already. For training in several processes, which don't see a signal at the
            same step and would wait for each other.
    """

    def __init__(self, *, immediate: bool = False) -> None:
        self.immediate = immediate
        self.requested = False
        self._hold_back = False
        self._raise_later = False
        self._signal: int = signal.SIGINT
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> InterruptGuard:
        self.requested = self._raise_later = False
        # Python allows signal handlers in the main thread only; elsewhere signals never arrive anyway.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Puts off KeyboardInterrupt to the end of the block."""
        self._hold_back = True
        try:
            yield
        finally:
            self._hold_back = False
        if self._raise_later:
            raise self.error

    @property
    def error(self) -> KeyboardInterrupt:
        """What is raised after the signal that came."""
        return Terminated() if self._signal == signal.SIGTERM else KeyboardInterrupt()

    def _handle(self, signal_number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a forked data loading process: the training process will end it
        self._signal = signal_number
        if self._hold_back:
            self._raise_later = True
        elif self.requested or self.immediate:
            raise self.error
        else:
            self.requested = True
            again = "" if signal_number == signal.SIGTERM else " Ctrl-C again: at once."
            print(f"\nStopping at the end of this step, with a checkpoint.{again}", file=sys.stderr)
