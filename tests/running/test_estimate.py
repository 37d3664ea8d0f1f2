"""Estimates with a clock that is set by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perceiver_io.running.estimate import Estimate
from perceiver_io.running.progress import Progress

from . import toy


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(seconds_a_step: float, *, num_steps: int, first: int = 1, **arguments: Any) -> dict[int, str]:
    """What is told after which step, of a training whose first step takes a minute more than the others."""
    clock = Clock()
    estimate = Estimate(**{"what": "40 epochs", "where": "2 threads", "clock": clock} | arguments)
    lines = {}
    clock.now += 60
    for step in range(first, num_steps + 1):
        clock.now += seconds_a_step
        line = estimate.after(step, num_steps)
        if line is not None:
            lines[step] = line
    return lines


@pytest.mark.parametrize(
    ("seconds_a_step", "num_steps", "expected"),
    [
        (0.5, 361, {21: "about 3 min for 40 epochs on 2 threads"}),  # ten seconds after the first
        (0.5, 101, {21: "about 50 s for 40 epochs on 2 threads"}),
        (30.0, 31, {4: "about 15 min for 40 epochs on 2 threads"}),  # three steps after the first
        (60.0, 241, {4: "about 4.0 h for 40 epochs on 2 threads"}),
        (0.1, 90, {}),  # over before there is anything to tell
    ],
)
def test_it_is_told_once_after_the_first_seconds(
    seconds_a_step: float, num_steps: int, expected: dict[int, str]
) -> None:
    assert told(seconds_a_step, num_steps=num_steps) == expected


def test_of_a_resumed_run_it_is_the_rest() -> None:
    assert told(0.5, num_steps=1360, first=1000) == {
        1020: "about 3 min until the end of 40 epochs on 2 threads"
    }


@pytest.mark.parametrize(
    ("seconds_a_step", "hint"),
    [(0.5, ""), (5.0, "; shorter with --num-epochs, --image-size or --variant small")],
)
def test_a_long_training_names_flags_that_shorten_it(seconds_a_step: float, hint: str) -> None:
    flags = ("--num-epochs", "--image-size", "--variant small")
    (line,) = told(seconds_a_step, num_steps=361, shorter=flags).values()
    assert line.partition(" threads")[2] == hint
    (line,) = told(5.0, num_steps=361, shorter=flags[:1]).values()
    assert line.endswith("; shorter with --num-epochs")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "about 20 min for 3 epochs on 1 thread; shorter with --num-epochs"),
        ({"max_steps": 15}, "about 20 min for 15 steps on 1 thread; shorter with --max-steps"),
        ({"num_threads": 2}, "about 20 min for 3 epochs on 2 threads; shorter with --num-epochs"),
    ],
)
def test_a_training_tells_it_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], expected: str
) -> None:
    trainer = toy.trainer(toy.recipe(tmp_path / "run", **changes))
    clock = trainer.progress.estimate.clock = Clock()
    before = Progress.on_step_end

    class Slow(type(trainer.progress)):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.now += 85.0
            before(self, *args, **kwargs)

    trainer.progress.__class__ = Slow
    trainer.fit()
    output = capsys.readouterr()
    assert expected in output.err and output.err.count("about ") == 1 and output.out == ""
