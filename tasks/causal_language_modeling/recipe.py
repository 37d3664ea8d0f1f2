"""The recipe of a language model that continues texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from perceiver_io.tasks.autoregressive.recipe import AutoregressiveRecipe

__all__ = ["CausalLanguageModelingRecipe"]


@dataclass(kw_only=True)
class CausalLanguageModelingRecipe(AutoregressiveRecipe):
    """What a language model is trained on, and how; by default a small one of bytes, for some minutes.

    Raises:
        ValueError: A value is out of its range, or does not go with another one.
    """

    embedded = ("stdlib",)
    default_length: ClassVar[int] = 256
    default_variant: ClassVar[str] = "compact"
    sources: ClassVar[tuple[str, ...]] = (*AutoregressiveRecipe.sources, "tokenizer")

    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "Tokenizer of a new model: a folder or hub id of one of transformers. By default that of UTF-8 "
            "bytes."
        },
    )
    max_steps: int | None = 800
    batch_size: int = 32
    learning_rate: float = 3e-3
    evaluate_every: int | None = 200
    best_metric: str = field(
        default="bits", metadata={"help": "Validation measure that chooses the checkpoint; none: the last."}
    )

    def __post_init__(self) -> None:
        """Checks all values."""
        super().__post_init__()
        if self.pretrained is not None and self.tokenizer is not None:
            raise ValueError(f"tokenizer cannot be chosen: the model of {self.pretrained} has its own.")
