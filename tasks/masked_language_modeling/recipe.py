"""The recipe of a masked language model's training."""

from __future__ import annotations

from dataclasses import dataclass, field

from perceiver_io.presets import variant_parts
from perceiver_io.running import DatasetRecipe
from perceiver_io.tasks.masked_language_modeling.presets import VARIANTS

__all__ = ["MaskedLanguageModelingRecipe"]

_FINE_TUNED_LENGTH = 512


@dataclass(kw_only=True)
class MaskedLanguageModelingRecipe(DatasetRecipe):
    """What a masked language model is trained on, and how; by default a small new one, for some minutes.

    Raises:
        ValueError: A value is out of its range, or does not go with another one.
    """

    embedded = ("stdlib",)

    variant: str | None = field(
        default=None, metadata={"help": f"Model preset, one of {', '.join(VARIANTS)}; by default small."}
    )
    max_length: int | None = field(
        default=None,
        metadata={
            "help": "Tokens of a window of text, [CLS] and [SEP] among them, and the longest text of a new model; by "
            f"default the preset's, and {_FINE_TUNED_LENGTH} of a pretrained model."
        },
    )
    masking_probability: float = field(default=0.15, metadata={"help": "Share of the bytes that are hidden."})
    training_masking_probability: float | None = field(
        default=None,
        metadata={
            "help": "The same in training, where it is another: more give a small model more to learn from."
        },
    )
    whole_words: bool = field(
        default=False, metadata={"help": "Hide words, with the space before them, instead of single bytes."}
    )
    max_steps: int | None = 5000
    batch_size: int = 8
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    beta2: float = 0.98
    evaluate_every: int | None = 1250
    log_every: int = 100
    best_metric: str = field(
        default="bits", metadata={"help": "Validation measure that chooses the checkpoint; none: the last."}
    )

    def __post_init__(self) -> None:
        """Fills in what follows from the preset, and checks all values."""
        super().__post_init__()
        for name in ("masking_probability", "training_masking_probability"):
            share = getattr(self, name)
            if share is not None and not 0 < share < 1:
                raise ValueError(f"{name} is {share}, expected a share between 0 and 1.")
        if self.pretrained is not None and self.variant is not None:
            raise ValueError(f"variant cannot be chosen: the model of {self.pretrained} has its own.")
        if self.pretrained is None:
            self.variant = self.variant or "small"
            text, _, _ = variant_parts(VARIANTS, self.variant, of="masked language model")
            self.max_length = text["max_length"] if self.max_length is None else self.max_length
        elif self.max_length is None:
            self.max_length = _FINE_TUNED_LENGTH
        assert self.max_length is not None
        if self.max_length < 3:
            raise ValueError(f"max_length is {self.max_length}, expected 3 or more: [CLS], a byte, [SEP].")
