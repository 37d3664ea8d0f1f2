"""What happens to a task, once for all: recipes, runs, evaluation, checkpoints. It knows no modality and no task.

`perceiver_io.running.runner` trains, evaluates and predicts; it needs `accelerate` and takes seconds to import.
"""

from perceiver_io.running.loaded_model import LoadedModel, load_model
from perceiver_io.running.recipe import DatasetRecipe, TrainingRecipe, section
from perceiver_io.running.recipe_parsing import parse_recipe, read_recipe_file, recipe_parser
from perceiver_io.running.run_folder import RunFolder
from perceiver_io.running.task import PredictOptions, Setup, Task, TrainableTask

__all__ = [
    "DatasetRecipe",
    "LoadedModel",
    "PredictOptions",
    "RunFolder",
    "Setup",
    "Task",
    "TrainableTask",
    "TrainingRecipe",
    "load_model",
    "parse_recipe",
    "read_recipe_file",
    "recipe_parser",
    "section",
]
