"""The bounds bind: what takes too long or too much, or is refused in another way, fails."""

import sys
from typing import Any

import pytest
import torch

from fuzz.trials import Refused, bounded, tried


def test_answers_and_refusals() -> None:
    def refuse(kind: type[Exception], message: str = "Got 1, expected 2.") -> None:
        raise kind(message)

    assert tried(len, "four") == 4
    for kind in (ValueError, FileNotFoundError, UnicodeError):
        assert isinstance(tried(refuse, kind), Refused)
    for other in (TypeError, KeyError, RuntimeError, RecursionError, MemoryError, OverflowError):
        with pytest.raises(other):
            tried(refuse, other)
    for message in ("", "long " * 1000, "\x1b[2J"):
        with pytest.raises(AssertionError, match=r"message|says nothing"):
            tried(refuse, ValueError, message)


def test_an_endless_loop_is_interrupted() -> None:
    def turn() -> None:
        while True:
            pass

    with pytest.raises(AssertionError, match=r"more than 0\.1 s"), bounded(seconds=0.1):
        turn()


def test_a_slow_call_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"it took .* s of processor time"), bounded(seconds=0.01):
        sum(range(1_000_000))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux only")
@pytest.mark.parametrize("megabytes, error", [(40, AssertionError), (40_000, RuntimeError)])
def test_memory_is_noticed(megabytes: int, error: Any) -> None:
    """What is used is measured, also if it is freed; what is only reserved is not there."""
    with (
        pytest.raises(error, match=r"bytes of memory|Cannot allocate memory"),
        bounded(most_bytes=20 * 2**20),
    ):
        torch.empty(megabytes * 2**20, dtype=torch.uint8)[: 40 * 2**20].fill_(1)
    with bounded(most_bytes=80 * 2**20):
        torch.ones(40 * 2**20, dtype=torch.uint8)
