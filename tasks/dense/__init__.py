"""Outputs with a value for each element of a grid: the model classes, their losses, and what all such tasks share."""

from perceiver_io.tasks.dense.losses import UNKNOWN, absolute_loss, class_loss, number_loss, squared_loss
from perceiver_io.tasks.dense.model import DenseModel
from perceiver_io.tasks.dense.multiple_outputs import MultipleOutputs, PerceiverIOForMultipleOutputs
from perceiver_io.tasks.dense.task import DenseRecipe, DenseTask

__all__ = [
    "UNKNOWN",
    "DenseModel",
    "DenseRecipe",
    "DenseTask",
    "MultipleOutputs",
    "PerceiverIOForMultipleOutputs",
    "absolute_loss",
    "class_loss",
    "number_loss",
    "squared_loss",
]
