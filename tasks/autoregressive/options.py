"""How sequences are generated, as the command's flags have it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from perceiver_io.running import PredictOptions

__all__ = ["GenerateOptions", "SamplingOptions"]


@dataclass(kw_only=True)
class SamplingOptions(PredictOptions):
    """How tokens are drawn. Tasks set their own defaults."""

    temperature: float = field(default=1.0, metadata={"help": "Below 1 what is likely becomes likelier."})
    top_k: int | None = field(
        default=None, metadata={"help": "Choose among so many of the likeliest tokens."}
    )
    top_p: float | None = field(
        default=None,
        metadata={"help": "Choose among the likeliest tokens that have this probability together."},
    )
    greedy: bool = field(default=False, metadata={"help": "Take the likeliest token each time."})
    num_samples: int = field(default=1, metadata={"help": "How many different ones to make of each prompt."})
    seed: int = field(default=0, metadata={"help": "Of the random choices, for each input anew."})
    refill_latents: int | None = field(
        default=None,
        metadata={
            "help": "Latents that read the window again when all are in use; half of the model's if none."
        },
    )

    def __post_init__(self) -> None:
        for name, lowest in (("top_k", 1), ("num_samples", 1), ("seed", 0)):
            self.check_least(name, lowest)
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}, expected a number above 0. See greedy.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected a number from 0 to 1.")

    def check_least(self, name: str, lowest: int) -> None:
        """Raises a ValueError if an option is lower than it may be."""
        value = getattr(self, name)
        if value is not None and value < lowest:
            raise ValueError(f"{name} is {value}, expected {lowest} or more.")


@dataclass(kw_only=True)
class GenerateOptions(SamplingOptions):
    """How sequences of any length are continued."""

    max_new_tokens: int | None = field(default=None, metadata={"help": "How many tokens to add at most."})
    num_beams: int = field(default=1, metadata={"help": "Beams that are searched; 1: none."})
    prompt_latents: int | None = field(
        default=None, metadata={"help": "Latents that read the prompt; half of the model's if none."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_new_tokens", "num_beams"):
            self.check_least(name, 1)
        if self.greedy and self.num_samples > max(self.num_beams, 1):
            raise ValueError(
                f"num_samples is {self.num_samples}, but there is one likeliest continuation. Leave greedy out, or "
                "search as many beams."
            )

    def arguments(self, *, max_new_tokens: int) -> dict[str, Any]:
        """Returns the arguments of `generate`, and sets the seed.

        Args:
            max_new_tokens: Where this says nothing.
        """
        torch.manual_seed(self.seed)
        sampled = not self.greedy and self.num_beams == 1
        choice: dict[str, Any] = {"do_sample": sampled, "num_beams": self.num_beams}
        if sampled:
            choice |= {
                "temperature": self.temperature,
                "top_k": 0 if self.top_k is None else self.top_k,
                "top_p": 1.0 if self.top_p is None else self.top_p,
            }
        return {
            **choice,
            "max_new_tokens": self.max_new_tokens or max_new_tokens,
            "num_return_sequences": self.num_samples,
            "prompt_latents": self.prompt_latents,
            "refill_latents": self.refill_latents,
        }
