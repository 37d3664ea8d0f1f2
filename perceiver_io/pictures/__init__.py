"""Pictures of what a model learned and of what it attends to, drawn without a display."""
