"""What the fuzz tests share: how many cases they try, how a case may end, and what it may cost.

    make test                      # few cases, the same each time
    make fuzz                      # 10,000 of each, others each time, failures are kept and tried again first
    make fuzz CASES=500 FUZZ='-k sound'

A case ends with an answer or with a refusal: a `ValueError` or an `OSError` with a short message that is printable.
Anything else that is raised, a process that ends, and a case that costs more than `bounded` allows, is a failure.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, currently_in_test_context, event, settings

from perceiver_io.printable import printable

__all__ = ["MOST_BYTES", "MOST_SECONDS", "REFUSALS", "Refused", "bounded", "cases", "tried"]

MOST_SECONDS = 5.0
"""Of processor time that reading one small file, or computing with one small input, may take."""

MOST_BYTES = 256 * 2**20
"""Of memory that it may take besides what was in use."""

REFUSALS = (ValueError, OSError)

# Addresses that may be reserved besides: threads and allocators reserve more than they use.
_RESERVED = 2**31
_LONGEST_MESSAGE = 2_000

_CASES = os.environ.get("FUZZ_CASES")


def cases(few: int = 20) -> settings:
    """Decorates a test that is given cases by Hypothesis.

    Args:
        few: How many there are in `make test`; `make fuzz` says how many there are in all tests.
    """
    everything = list(HealthCheck)
    if _CASES is None:
        return settings(max_examples=few, suppress_health_check=everything)
    again = settings.get_profile("default").database
    return settings(
        max_examples=int(_CASES),
        suppress_health_check=everything,
        derandomize=False,
        database=again,
        print_blob=True,
    )


class Refused:
    """What `tried` returns in place of an answer.

    Attributes:
        error: Says why.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error


def tried(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Returns what a call returns within its bounds, or a `Refused`.

    Raises:
        AssertionError: It costs more than it may, or the refusal is longer than a screen or would steer a terminal.
    """
    with bounded():
        try:
            answer = call(*args, **kwargs)
        except REFUSALS as error:
            answer = Refused(error)
    if isinstance(answer, Refused):
        text = str(answer.error)
        assert text.strip(), f"{answer.error!r} says nothing"
        assert len(text) <= _LONGEST_MESSAGE, f"the message has {len(text):,} characters: {text[:500]}"
        assert text == printable(text, lines=True), f"the message is not printable: {text!r}"
    if currently_in_test_context():
        event(f"refused ({type(answer.error).__name__})" if isinstance(answer, Refused) else "answered")
    return answer


@contextmanager
def bounded(seconds: float = MOST_SECONDS, most_bytes: int = MOST_BYTES) -> Iterator[None]:
    """Ends the block with an error if it takes more processor time or memory than it may.

    Endless loops of Python are interrupted. Those of C are not: they end with the test's own time limit. Memory is
    measured on Linux only.
    """
    linux = sys.platform == "linux"

    def late(*_: Any) -> None:
        raise AssertionError(f"it took more than {seconds} s of processor time")

    before, limit = signal.signal(signal.SIGVTALRM, late), resource.getrlimit(resource.RLIMIT_AS)
    signal.setitimer(signal.ITIMER_VIRTUAL, 2 * seconds)
    begin, taken = time.process_time(), 0
    if linux:
        resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + most_bytes + _RESERVED, limit[1]))
        # So that the peak is what is in use now.
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        taken = _status("VmRSS")
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limit)
    spent = time.process_time() - begin
    assert spent <= seconds, f"it took {spent:.1f} s of processor time, at most {seconds} are allowed"
    if linux:
        peak = _status("VmHWM") - taken
        assert peak <= most_bytes, f"it took {peak:,} bytes of memory, at most {most_bytes:,} are allowed"


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name}")
