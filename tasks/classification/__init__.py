"""What all tasks that name a class have in common, whatever they look at."""

from perceiver_io.tasks.classification.task import ClassificationTask, ClassPredictOptions

__all__ = ["ClassPredictOptions", "ClassificationTask"]
