"""Classes and numbers out of rows of a table: presets and the processor."""

from perceiver_io.adapters.table_processor import TableProcessor
from perceiver_io.tasks.tabular.presets import classification_config, regression_config

__all__ = ["TableProcessor", "classification_config", "regression_config"]
