"""The `perceiver-io` command: flags to calls, results to text."""

from perceiver_io.cli.main import main

__all__ = ["main"]
