"""The page about parts: its example learns, and is shown whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLE = DOCS / "examples" / "name_the_digit.py"

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not beside tests/")


@pytest.mark.slow
def test_a_frozen_language_model_learns_to_name_what_a_frozen_vision_model_sees() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, str(EXAMPLE)], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    before, after = map(float, re.findall(r"([\d.]+)%", result.stdout))
    assert before < 25 and after > 90, result.stdout
    parameters = re.findall(r"([\d,]+) parameters learn", result.stdout)
    assert parameters[0] in (DOCS / "use-a-part.md").read_text(encoding="utf-8")


def test_the_page_shows_the_whole_example() -> None:
    source = EXAMPLE.read_text(encoding="utf-8")
    shown = re.findall(r"name_the_digit\.py:(\w+)", (DOCS / "use-a-part.md").read_text(encoding="utf-8"))
    assert shown == re.findall(r"\[start:(\w+)\]", source)
    outside = re.sub(r"# --8<-- \[start:(\w+)\].*?# --8<-- \[end:\1\]", "", source, flags=re.DOTALL)
    rest = [line for line in outside.split('"""')[2].splitlines() if line.strip()]
    assert not [line for line in rest if not re.match(r"from |import |if __name__|    main\(\)", line)]
