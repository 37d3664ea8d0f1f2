"""N-grams of tokens, smoothed by Witten and Bell (1991): what counting alone says of a sequence."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

__all__ = ["NGrams"]


class NGrams:
    """Counts of tokens after up to `order` - 1 others.

    How likely a token is after those before it is what was counted, and what the next shorter one says, the more of
    that, the more different tokens came after them.

    Args:
        documents: Ids, (length,) each.
        order: Tokens of the longest, the predicted one among them.
        vocab_size: How many tokens there are, all equally likely before anything is counted.
    """

    def __init__(self, documents: Sequence[NDArray[Any]], order: int, *, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.counts: list[defaultdict[tuple[int, ...], Counter[int]]] = [
            defaultdict(Counter) for _ in range(order)
        ]
        for document in documents:
            ids = document.tolist()
            for place in range(1, len(ids)):
                for length in range(min(order, place + 1)):
                    self.counts[length][tuple(ids[place - length : place])][ids[place]] += 1
        self.totals = [
            {context: (sum(after.values()), len(after)) for context, after in of_length.items()}
            for of_length in self.counts
        ]

    def nats(self, documents: Sequence[NDArray[Any]], order: int) -> float:
        """Returns the mean surprise of all tokens but the first of each document.

        Args:
            documents: Ids, (length,) each.
            order: As the constructor's, up to that.
        """
        surprise, number = 0.0, 0
        for document in documents:
            ids = document.tolist()
            for place in range(1, len(ids)):
                probability = 1 / self.vocab_size
                for length in range(min(order, place + 1)):
                    context = tuple(ids[place - length : place])
                    if context not in self.totals[length]:
                        break
                    total, kinds = self.totals[length][context]
                    seen = self.counts[length][context][ids[place]]
                    probability = (seen + kinds * probability) / (total + kinds)
                surprise -= math.log(probability)
                number += 1
        return surprise / number
