"""The contract suite over the example of a task, as its page shows it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"

if not EXAMPLES.is_dir():
    pytest.skip("docs/ is not beside tests/", allow_module_level=True)
sys.path.insert(0, str(EXAMPLES))  # other processes import the task from there too
from test_my_task import case, test_contract  # noqa: E402

__all__ = ["case", "test_contract"]

pytestmark = pytest.mark.slow
