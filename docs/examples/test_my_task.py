"""The task of `my_task.py` keeps the contract of tasks: run it with pytest."""

# --8<-- [start:contract]
import pytest
from my_task import WeatherStationsTask

from perceiver_io.testing.tasks import TASK_CHECKS, TaskCase


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weather")
    file = folder / "map.json"
    file.write_text("[[0.1, -0.2, 11.5], [-0.4, 0.9, 3.0]]")
    settings = {"num_maps": 60, "batch_size": 8}
    return TaskCase(task_class=WeatherStationsTask, settings=settings, inputs=[str(file)], folder=folder)


@pytest.mark.parametrize("check", TASK_CHECKS.values(), ids=TASK_CHECKS)
def test_contract(check, case):
    check(case)


# --8<-- [end:contract]
