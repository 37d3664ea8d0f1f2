"""What the recipes of models that continue sequences have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from perceiver_io.running import DatasetRecipe
from perceiver_io.tasks.autoregressive.presets import VARIANTS

__all__ = ["AutoregressiveRecipe", "CausalRecipe"]


@dataclass(kw_only=True)
class CausalRecipe(DatasetRecipe):
    """What a Perceiver AR is trained on, and how.

    Raises:
        ValueError: A value is out of its range, or does not go with another one.
    """

    default_variant: ClassVar[str] = "small"
    """`variant` of a new model, where nothing is said."""

    variant: str | None = field(
        default=None, metadata={"help": f"Preset of a new model, one of {', '.join(VARIANTS)}."}
    )
    num_latents: int | None = field(
        default=None,
        metadata={"help": "Latents of a new model: what follows so many tokens is learned at once."},
    )
    max_steps: int | None = 1500
    batch_size: int = 16
    eval_batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    beta2: float = 0.98
    evaluate_every: int | None = 500
    log_every: int = 50
    num_threads: int | None = None

    def __post_init__(self) -> None:
        """Fills in what follows from the defaults, and checks all values."""
        super().__post_init__()
        if self.pretrained is None:
            self.variant = self.variant or self.default_variant
        elif self.variant is not None:
            raise ValueError(f"variant cannot be chosen: the model of {self.pretrained} has its own.")
        if self.num_latents is not None and self.num_latents < 2:
            raise ValueError(
                f"num_latents is {self.num_latents}, expected 2 or more: each latent but the last predicts the token "
                "of the next."
            )


@dataclass(kw_only=True)
class AutoregressiveRecipe(CausalRecipe):
    """What a Perceiver AR is trained on, and how, by windows of long sequences.

    Raises:
        ValueError: A value is out of its range, or does not go with another one.
    """

    default_length: ClassVar[int] = 512
    """`max_length`, where nothing is said."""

    max_length: int | None = field(
        default=None,
        metadata={"help": "Tokens that a new model reads, and of a window of the training."},
    )
    num_latents: int | None = field(
        default=None,
        metadata={
            "help": "Latents of a new model, and how many of a window's last tokens are learned from; by default half "
            "of max_length."
        },
    )
    short_windows: float = field(
        default=0.25,
        metadata={
            "help": "Part of the batches whose windows are cut short, so that a model knows short contexts."
        },
    )
    move_windows: bool = field(
        default=True,
        metadata={"help": "Cut the training data at other places each time that it is passed over."},
    )

    def __post_init__(self) -> None:
        """Fills in what follows from the defaults, and checks all values."""
        super().__post_init__()
        if not 0 <= self.short_windows <= 1:
            raise ValueError(f"short_windows is {self.short_windows}, expected a part from 0 to 1.")
        self.max_length = self.default_length if self.max_length is None else self.max_length
        self.num_latents = max(self.max_length // 2, 2) if self.num_latents is None else self.num_latents
        if not 2 <= self.num_latents <= self.max_length:
            raise ValueError(
                f"num_latents is {self.num_latents}, expected from 2 to max_length, {self.max_length}: each latent but "
                "the last predicts the token of the next."
            )
