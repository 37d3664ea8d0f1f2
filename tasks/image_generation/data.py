"""Images that are learned to be drawn: scanned digits, crops of photographs, any files, with classes or without."""

from perceiver_io.tasks.image_autoencoding.data import EMBEDDED

__all__ = ["EMBEDDED", "NUM_LEVELS"]

NUM_LEVELS = {"digits": 17}
"""How many levels the values of an embedded set have, where they are fewer than 256."""
