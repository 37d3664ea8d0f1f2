"""Classes of any inputs: the model class, and what all tasks that name a class have in common."""

from perceiver_io.tasks.classification.model import PerceiverIOForClassification
from perceiver_io.tasks.classification.task import ClassificationTask, ClassPredictOptions

__all__ = ["ClassPredictOptions", "ClassificationTask", "PerceiverIOForClassification"]
