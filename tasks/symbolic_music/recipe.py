"""The recipe of a model that continues music."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from perceiver_io.tasks.autoregressive.recipe import AutoregressiveRecipe
from perceiver_io.tasks.symbolic_music.data import EMBEDDED

__all__ = ["SymbolicMusicRecipe"]


@dataclass(kw_only=True)
class SymbolicMusicRecipe(AutoregressiveRecipe):
    """What a model of music is trained on, and how; by default a small one, for some minutes.

    Raises:
        ValueError: A value is out of its range, or does not go with another one.
    """

    embedded = tuple(EMBEDDED)
    default_variant: ClassVar[str] = "compact"

    transposition: int = field(
        default=3,
        metadata={"help": "Semitones by which training windows are moved at random, up or down, at most."},
    )
    krasserm_events: bool = field(
        default=False,
        metadata={
            "help": "Make events as krasserm's models have them, with a velocity before nearly every note."
        },
    )
    label_column: str = field(
        default="label",
        metadata={
            "help": "A column with labels: they are not read, but split by, as a classifier's data is."
        },
    )
    max_steps: int | None = 1100
    batch_size: int = 8
    learning_rate: float = 3e-3
    evaluate_every: int | None = 550
    num_threads: int | None = 1
    best_metric: str = field(
        default="nats", metadata={"help": "Validation measure that chooses the checkpoint; none: the last."}
    )

    def __post_init__(self) -> None:
        """Checks all values."""
        super().__post_init__()
        if not 0 <= self.transposition <= 127:
            raise ValueError(f"transposition is {self.transposition}, expected 0 to 127 semitones.")
        if self.pretrained is not None and self.krasserm_events:
            raise ValueError(
                f"krasserm_events cannot be chosen: the model of {self.pretrained} has its own events."
            )
