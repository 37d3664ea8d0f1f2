"""Which data a run uses, and how it is split."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["DataSettings", "SplitSettings"]


@dataclass(kw_only=True)
class SplitSettings:
    """How data is split.

    Raises:
        ValueError: A fraction is out of its range.
    """

    validation_fraction: float = field(
        default=0.1,
        metadata={
            "help": "Part of the training data that the best checkpoint is chosen on; 0: keep the last one."
        },
    )
    test_fraction: float = field(
        default=0.2, metadata={"help": "Part of the data to test on, where the dataset has no test set."}
    )
    train_fraction: float = field(
        default=1.0,
        metadata={
            "help": "Part of the training data that is learned from, chosen by the seed; what is validated and tested "
            "on stays. Of each class the same part, but one sample at least."
        },
    )

    def __post_init__(self) -> None:
        """Checks the fractions."""
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction is {self.validation_fraction}, expected a fraction: at least 0, less than 1."
            )
        if not 0 < self.test_fraction < 1:
            raise ValueError(
                f"test_fraction is {self.test_fraction}, expected a fraction: more than 0, less than 1."
            )
        if not 0 < self.train_fraction <= 1:
            raise ValueError(
                f"train_fraction is {self.train_fraction}, expected a part: more than 0, 1 at most."
            )


@dataclass(kw_only=True)
class DataSettings(SplitSettings):
    """Which data is read, and how it is split."""

    dataset: str | None = field(
        default=None,
        metadata={"help": "An embedded set, a folder, or the id of a dataset on the Hugging Face hub."},
    )
    input_column: str | None = field(
        default=None,
        metadata={"help": "The dataset's column with the inputs, where the task's own name is not it."},
    )
    label_column: str = field(default="label", metadata={"help": "The dataset's column with the labels."})
    skip_bad_files: bool = field(
        default=False, metadata={"help": "Leave missing and corrupt files out instead of refusing them."}
    )
