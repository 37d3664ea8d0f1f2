"""Ctrl-C during training: finish the step, save, then stop; never stop within a write."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["InterruptGuard"]


class InterruptGuard:
    """Catches SIGINT while it is entered.

    The first one is noted in `requested`, so that training can stop at the end of a step. The next one raises
    KeyboardInterrupt at once, or, within `held_back`, at the end of it.

    Args:
        immediate: Raise at the first one already. For training in several processes, which don't see a signal at the
            same step and would wait for each other.
    """

    def __init__(self, *, immediate: bool = False) -> None:
        self.immediate = immediate
        self.requested = False
        self._hold_back = False
        self._raise_later = False
        self._pid = os.getpid()
        self._previous: Any = None

    def __enter__(self) -> InterruptGuard:
        self.requested = self._raise_later = False
        # Python allows signal handlers in the main thread only; elsewhere SIGINT never arrives anyway.
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Puts off KeyboardInterrupt to the end of the block."""
        self._hold_back = True
        try:
            yield
        finally:
            self._hold_back = False
        if self._raise_later:
            raise KeyboardInterrupt

    def _handle(self, signal_number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a forked data loading process: the training process will end it
        if self._hold_back:
            self._raise_later = True
        elif self.requested or self.immediate:
            raise KeyboardInterrupt
        else:
            self.requested = True
            print(
                "\nStopping at the end of this step, with a checkpoint. Ctrl-C again: at once.",
                file=sys.stderr,
            )
