"""Tasks: one folder a task, with its presets, model class, data and metrics."""
