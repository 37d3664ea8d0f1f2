"""Long sequences of tokens, cut in windows of which the last tokens are predicted.

Shape legend: T tokens of a window, N latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TokenWindows", "Window"]

Tokens = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Window:
    """Part of a document.

    Attributes:
        tokens: Its tokens.
        num_predicted: How many of them, the last ones, are predicted; each has one before it.
        spare: How many of the last tokens may be left out: a window may end so much earlier.
        max_length: How many tokens a window has at most, the last ones that are not left out; all of them if None.
    """

    tokens: Tokens
    num_predicted: int
    spare: int = 0
    max_length: int | None = None

    def ending(self, num_left_out: int) -> Tokens:
        """Returns the tokens of the window if it ends so much earlier."""
        end = len(self.tokens) - num_left_out
        return self.tokens[0 if self.max_length is None else max(0, end - self.max_length) : end]


class TokenWindows(Sequence[Window]):
    """Windows of documents, in which each token but the first of a document is predicted once.

    A window is as long as the model's context, but for those at a document's beginning: what stands before the
    predicted tokens is in other windows too.

    Args:
        documents: Tokens, (length,) each. One of a single token has nothing to predict, and is left out.
        max_length: T.
        num_latents: N, one more than the tokens that a window predicts.
        movable: Whether windows come with tokens to be moved over, for training. Then they are cut at random places,
            but for the first and the last of a document, so that what stands there is predicted as often as the rest.
    """

    def __init__(
        self, documents: Sequence[Tokens], *, max_length: int, num_latents: int, movable: bool = False
    ) -> None:
        if not 2 <= num_latents <= max_length:
            raise ValueError(
                f"Windows of {max_length} tokens and {num_latents} latents predict nothing: expected 2 latents or "
                "more, and as many tokens or more."
            )
        self.documents = [document for document in documents if len(document) > 1]
        self.max_length, self.step, self.movable = max_length, num_latents - 1, movable
        self.places = [
            (number, start)
            for number, document in enumerate(self.documents)
            for start in range(1, len(document), self.step)
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        number, start = self.places[index]
        document = self.documents[number]
        end = min(start + self.step, len(document))
        if not self.movable:
            return Window(document[max(0, end - self.max_length) : end], end - start)
        spare = 0 if start == 1 or end == len(document) else self.step - 1
        end = min(end + spare // 2, len(document))
        tokens = document[max(0, end - spare - self.max_length) : end]
        return Window(tokens, self.step, spare=spare, max_length=self.max_length)
