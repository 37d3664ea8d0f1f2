"""Numbers out of any inputs: the model class, and what all tasks that give numbers have in common."""

from perceiver_io.tasks.regression.model import PerceiverIOForRegression, RegressionOutput
from perceiver_io.tasks.regression.task import RegressionTask

__all__ = ["PerceiverIOForRegression", "RegressionOutput", "RegressionTask"]
