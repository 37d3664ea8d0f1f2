"""How many latents read how much of a sequence while it grows token by token.

A latent that joins changes nothing for those before it, so outputs can be cached while their number grows. When all N
are in use, the window is read again with fewer, and they grow again: so does the release of Perceiver AR, with N / 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from perceiver_io.input_tools import whole_number

__all__ = ["LatentSchedule"]


@dataclass(frozen=True, kw_only=True)
class LatentSchedule:
    """How many latents there are, as a function of how many tokens were added to the prompt.

    Whatever is cached, the same latents read the same window.

    Attributes:
        max_latents: N.
        max_length: The most elements that the model reads, latents among them.
        prompt_latents: Latents that read the prompt.
        refill_latents: Latents that read the window again after all N were in use. With N, the window is read again for
            each token from there on: no cache helps, and each token has the most latents before it.
        prompt_length: Tokens of the prompt, padding included; None before it is known.

    Raises:
        ValueError: A number of latents is not in 1 … N.
    """

    max_latents: int
    max_length: int
    prompt_latents: int
    refill_latents: int
    prompt_length: int | None = None

    def __post_init__(self) -> None:
        for name in ("prompt_latents", "refill_latents"):
            whole_number(getattr(self, name), name=name, least=0)
            if not 1 <= getattr(self, name) <= self.max_latents:
                raise ValueError(
                    f"{name} must be from 1 to the model's {self.max_latents} latents, got {getattr(self, name)}."
                )

    def after_prompt(self, prompt_length: int) -> LatentSchedule:
        """Returns the schedule of a sequence that begins with so many tokens."""
        return replace(self, prompt_length=prompt_length)

    def num_latents(self, length: int) -> int:
        """Returns how many latents there are when a sequence has so many tokens."""
        assert self.prompt_length is not None
        num_latents = self.prompt_latents + length - self.prompt_length
        if num_latents > self.max_latents:
            cycle = self.max_latents - self.refill_latents + 1
            num_latents = self.refill_latents + (num_latents - self.max_latents - 1) % cycle
        return num_latents

    def window(self, length: int) -> int:
        """Returns how many of so many tokens are read: the last ones, and so few that all N latents find room.

        Before the window is as long as that it begins with the first token.
        """
        return min(length, self.max_length - self.max_latents + self.num_latents(length))
