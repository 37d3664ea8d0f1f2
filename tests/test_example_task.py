from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perceiver_io.testing.tasks import TASK_CHECKS, TaskCase

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EXAMPLES.is_dir(), reason="docs/ is not beside tests/"),
]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> TaskCase:
    sys.path.insert(0, str(EXAMPLES))  # other processes import the task from there too
    import my_task

    folder = tmp_path_factory.mktemp("stations")
    file = folder / "map.json"
    file.write_text(json.dumps([[0.1, -0.2, 11.5], [-0.4, 0.9, 3.0], [0.0, 0.3, 20.25]]))
    other = folder / "other.json"
    other.write_text(json.dumps([[0.5, 0.5, 14.0]]))
    settings = {"num_maps": 60, "batch_size": 8, "eval_batch_size": 5}
    return TaskCase(
        task_class=my_task.WeatherStationsTask,
        settings=settings,
        inputs=[str(file), str(other)],
        folder=folder,
    )


@pytest.mark.parametrize("check", TASK_CHECKS.values(), ids=TASK_CHECKS)
def test_contract(check: Callable[[TaskCase], None], case: TaskCase) -> None:
    check(case)
