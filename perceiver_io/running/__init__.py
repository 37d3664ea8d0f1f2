"""What all tasks share of a training run. It knows no modality and no task.

`perceiver_io.running.trainer` is not imported here: it needs `accelerate`, and takes seconds.
"""

from perceiver_io.running.recipe import TrainingRecipe, parse_recipe, read_recipe_file, recipe_parser
from perceiver_io.running.run_folder import RunFolder
from perceiver_io.running.task import Task, TrainableTask

__all__ = [
    "RunFolder",
    "Task",
    "TrainableTask",
    "TrainingRecipe",
    "parse_recipe",
    "read_recipe_file",
    "recipe_parser",
]
