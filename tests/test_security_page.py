"""SECURITY.md names tests that are there, and the limits of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perceiver_io import budget, component, config, pickle_scan
from perceiver_io.media import clips, midi, video_stream
from perceiver_io.published import unpickler
from perceiver_io.running import yaml_text

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("|")]
GIB = 2**30

LIMITS: dict[str, list[tuple[int, str]]] = {
    "JSON": [(budget.MOST_LEVELS, "levels"), (budget.MOST_JSON_VALUES, "values")],
    "configurations": [
        (component._LARGEST_INT.bit_length() + 1, "bits"),
        (config._MOST_LAYERS, "layers"),
        (config._MOST_CLASSES, "classes"),
        (config._LONGEST_NAME, "characters"),
    ],
    "recipes (YAML)": [
        (yaml_text.LONGEST_YAML, "characters"),
        (budget.MOST_LEVELS, "levels"),
        (budget.MOST_VALUES, "values"),
        (yaml_text._COUNTS_ONCE, "characters of a text"),
        (yaml_text._LONGEST_NUMBER, "characters"),
    ],
    "`pytorch_model.bin`": [
        (pickle_scan.MOST_INSTRUCTIONS, "instructions"),
        (budget.MOST_LEVELS, "levels"),
    ],
    "pickles of the original release": [
        (unpickler._MOST_INSTRUCTIONS, "instructions"),
        (budget.MOST_LEVELS, "levels"),
        (budget.MOST_VALUES, "values"),
        (unpickler._LONGEST_NAME, "characters"),
    ],
    "images, sounds, arrays, clouds, flow, clips, tables": [(budget.MOST_DECODED_BYTES // GIB, "GiB")],
    "videos": [
        (video_stream._MOST_PIXELS.bit_length() - 1, "pixels"),
        (clips._LONGEST_FRAME, "seconds"),
        (budget.MOST_DECODED_BYTES // GIB, "GiB"),
        (budget.MOST_INFLATION, "bytes more"),
        (video_stream._LEAST_RATE, "Hz"),
    ],
    "MIDI": [(midi.MAX_EVENTS, "events"), (midi.MAX_SECONDS, "seconds")],
}


@pytest.mark.parametrize("kind", LIMITS)
def test_limits_are_those_of_the_code(kind: str) -> None:
    (row,) = (row for row in ROWS if row[0] == kind)
    for limit, unit in LIMITS[kind]:
        assert re.search(rf"(^|[ ^]){limit:,}\b.*{unit}", row[1]), (limit, unit, row[1])


def test_every_kind_of_file_that_has_a_limit_is_looked_at() -> None:
    start = PAGE.index("## What reading may cost")
    kinds = re.findall(r"^\| (.*?) \|", PAGE[start:], flags=re.MULTILINE)
    assert kinds == ["file", *LIMITS]
    assert str(budget.MOST_DECODED_BYTES) in PAGE[start:] and budget._DECODED_BYTES in PAGE[start:]


def test_every_promise_names_tests_that_are_there() -> None:
    promises = [
        row
        for row in ROWS
        if len(row) > 1 and not row[0].startswith(("from", "strangers", "accidents", "---"))
    ]
    assert len(promises) > 25
    for row in promises:
        if row[-1] == "tested by":
            continue
        named = re.findall(r"`([^`]+)`", row[-1])
        assert named, row
        for name in named:
            assert name.startswith(("tests/", "benchmarks/")) and (ROOT / name).is_file(), name
