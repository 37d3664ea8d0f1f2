"""What the tasks are compared with: one file each, see benchmarks/modalities.py."""
