"""An interpolated byte n-gram model that sees both sides of a hidden byte.

A context (l, r) is the l bytes to the left and the r bytes to the right of a place. A byte's probability in a context
is what absolute discounting leaves of its count in the training texts, plus what that took away times the mean of the
probabilities in the two contexts that are one byte shorter:

    p_lr(x) = max(c(x) - d, 0) / n + d t / n (p_(l-1)r(x) + p_l(r-1)(x)) / 2

with n the count of the context, t the number of different bytes in it, and d a discount for each l + r. A context that
was never seen, or that holds a hidden byte, leaves the word to shorter ones. In the end the probabilities of all
contexts are mixed, with weights that depend on how many bytes can be seen on either side and on how often the longest
context was seen.

Shape legend: B batch, T tokens, Q hidden bytes, W bytes on one side, V = 256 values, K contexts, E entries of a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["HiddenBytes", "NgramModel", "hidden_bytes"]

NUM_VALUES = 256
MAX_ORDER = 7  # with the byte itself a context fills 64 bits
_BUCKET_STARTS = np.array([1, 2, 4, 16, 64])  # of how often the longest context was seen
_NUM_BUCKETS = len(_BUCKET_STARTS) + 1
_MIN_FITTED = 20  # hidden bytes that weights are fitted on
_BATCH = 4096  # hidden bytes whose distributions are held at once

Context = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class HiddenBytes:
    """Hidden bytes, and what can be seen around them.

    Attributes:
        target: (Q,) the byte that is hidden.
        left: (Q, W) the bytes to the left, the nearest first.
        right: (Q, W) the bytes to the right, the nearest first.
        num_left: (Q,) how many of the left ones come before the next hidden byte or the end of the text.
        num_right: (Q,) the same for the right ones.
    """

    target: NDArray[np.uint8]
    left: NDArray[np.uint8]
    right: NDArray[np.uint8]
    num_left: NDArray[np.int64]
    num_right: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.target)

    def part(self, which: slice | NDArray[np.bool_]) -> HiddenBytes:
        """Returns some of them."""
        return HiddenBytes(**{name: value[which] for name, value in vars(self).items()})


def hidden_bytes(
    batches: Iterable[Mapping[str, torch.Tensor]], *, first_byte: int, width: int
) -> HiddenBytes:
    """Collects the hidden bytes of the batches that a masked language model is evaluated on.

    Args:
        batches: What `MaskingCollator` returns: ``input_ids``, ``positions`` and ``labels``. Special tokens end a text.
        first_byte: The token id of the byte 0; smaller ids are special.
        width: W, how far contexts reach.
    """
    parts = []
    steps_W = np.arange(1, width + 1)
    for batch in batches:
        labels_BO = batch["labels"].numpy()
        row_Q, column_Q = np.nonzero(labels_BO >= 0)
        place_Q1 = batch["positions"].numpy()[row_Q, column_Q][:, None] + width
        ids_BT = np.pad(batch["input_ids"].numpy(), ((0, 0), (width, width)))
        visible_BT = ids_BT >= first_byte
        text_BT = np.where(visible_BT, ids_BT - first_byte, 0).astype(np.uint8)
        sides = [(row_Q[:, None], place_Q1 - steps_W), (row_Q[:, None], place_Q1 + steps_W)]
        left_QW, right_QW = (text_BT[side] for side in sides)
        num_left_Q, num_right_Q = (visible_BT[side].cumprod(axis=1).sum(axis=1) for side in sides)
        target_Q = (labels_BO[row_Q, column_Q] - first_byte).astype(np.uint8)
        parts.append((target_Q, left_QW, right_QW, num_left_Q, num_right_Q))
    names = ("target", "left", "right", "num_left", "num_right")
    joined = {
        name: np.concatenate(arrays) for name, arrays in zip(names, zip(*parts, strict=True), strict=True)
    }
    return HiddenBytes(**joined)


@dataclass(frozen=True, kw_only=True)
class _Table:
    """How often each byte stood in each context of one shape, sorted by context.

    Attributes:
        contexts: (K,) the contexts that were seen, each packed in an integer.
        starts: (K + 1,) where each context's entries begin.
        values: (E,) the byte of each entry.
        counts: (E,) how often it stood there.
        totals: (K,) how often the context was seen.
    """

    contexts: NDArray[np.uint64]
    starts: NDArray[np.int64]
    values: NDArray[np.uint8]
    counts: NDArray[np.int64]
    totals: NDArray[np.int64]


class NgramModel:
    """Counts of contexts, and how to interpolate them.

    Args:
        texts: The training texts; no context reaches over the end of one.
        order: The most bytes of a context.
        reach: The most bytes of a context on one side.

    Raises:
        ValueError: A context would not fit in 64 bits together with its byte.
    """

    def __init__(self, texts: Iterable[NDArray[np.uint8]], *, order: int, reach: int) -> None:
        if not 0 <= order <= MAX_ORDER:
            raise ValueError(f"order is {order}, expected 0 to {MAX_ORDER}.")
        self.width = min(reach, order)
        sides = range(self.width + 1)
        # Shorter contexts first: each leans on those before it.
        self.contexts: list[Context] = sorted(
            ((left, right) for left in sides for right in sides if left + right <= order), key=sum
        )
        text, start, stop = _joined(texts)
        self.tables = {context: _count(text, start, stop, *context) for context in self.contexts}
        self.discounts = np.full(order + 1, 0.75)
        # By the bytes that can be seen on either side and the bucket, (W + 1, W + 1, buckets, K).
        shape = (self.width + 1, self.width + 1, _NUM_BUCKETS)
        self.weights = np.zeros((*shape, len(self.contexts)))
        for num_left, num_right in np.ndindex(*shape[:2]):
            self.weights[num_left, num_right, :, self._usable(num_left, num_right)[-1]] = 1.0

    @property
    def num_counts(self) -> int:
        """How many numbers the model consists of."""
        return sum(len(table.counts) for table in self.tables.values())

    def fit(
        self,
        hidden: HiddenBytes,
        *,
        discounts: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9),
        rounds: int = 30,
    ) -> None:
        """Fits discounts by search, order by order, then the weights of the mixture by expectation-maximisation.

        Args:
            hidden: Hidden bytes of texts that are neither trained nor evaluated on.
            discounts: What to try.
            rounds: Rounds of expectation-maximisation.
        """
        some = hidden.part(slice(0, 4 * _BATCH))
        for order in range(len(self.discounts)):
            bits = []
            for discount in discounts:
                self.discounts[order] = discount
                bits.append(self.evaluate(some)[0].mean())
            self.discounts[order] = discounts[int(np.argmin(bits))]
        probability_QK = np.concatenate([self._of_target(part) for part in _batches(hidden)])
        bucket_Q = self._bucket(hidden)
        left_Q, right_Q = self._seen(hidden.num_left), self._seen(hidden.num_right)
        for num_left, num_right, bucket in np.ndindex(*self.weights.shape[:3]):
            which_Q = (left_Q == num_left) & (right_Q == num_right) & (bucket_Q == bucket)
            if which_Q.sum() < _MIN_FITTED:
                continue
            usable = self._usable(num_left, num_right)
            p_QK = probability_QK[which_Q][:, usable]
            weight_K = np.full(len(usable), 1 / len(usable))
            for _ in range(rounds):
                share_QK = weight_K * p_QK
                share_QK /= share_QK.sum(axis=1, keepdims=True)
                weight_K = share_QK.mean(axis=0)
            self.weights[num_left, num_right, bucket] = 0
            self.weights[num_left, num_right, bucket, usable] = weight_K

    def evaluate(self, hidden: HiddenBytes) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Returns the bits that each hidden byte costs, and whether it is the likeliest: (Q,) each."""
        bits, hits = [], []
        for part in _batches(hidden):
            distribution_QV = self.distribution(part)
            bits.append(-np.log2(distribution_QV[np.arange(len(part)), part.target]))
            hits.append(distribution_QV.argmax(axis=1) == part.target)
        return np.concatenate(bits), np.concatenate(hits)

    def distribution(self, hidden: HiddenBytes) -> NDArray[np.float64]:
        """Returns what stands at each hidden byte, (Q, V) probabilities, without a look at it."""
        mixed_QV = np.zeros((len(hidden), NUM_VALUES))
        left_Q, right_Q = self._seen(hidden.num_left), self._seen(hidden.num_right)
        weight_QK = self.weights[left_Q, right_Q, self._bucket(hidden)]
        for index, p_QV in enumerate(self._by_context(hidden)):
            mixed_QV += weight_QK[:, index, None] * p_QV
        return mixed_QV

    def _of_target(self, hidden: HiddenBytes) -> NDArray[np.float64]:
        """The probability of the hidden byte in each context, (Q, K)."""
        rows_Q = np.arange(len(hidden))
        return np.stack([p_QV[rows_Q, hidden.target] for p_QV in self._by_context(hidden)], axis=1)

    def _by_context(self, hidden: HiddenBytes) -> Iterator[NDArray[np.float64]]:
        """(Q, V) for each context; where one cannot be used, what shorter ones say."""
        uniform_QV = np.full((len(hidden), NUM_VALUES), 1 / NUM_VALUES)
        found: dict[Context, NDArray[np.float64]] = {}
        for left, right in self.contexts:
            shorter = [found[one] for one in ((left - 1, right), (left, right - 1)) if one in found]
            p_QV = (shorter[0] + shorter[-1]) / 2 if shorter else uniform_QV
            table, discount = self.tables[left, right], self.discounts[left + right]
            row_Q, known_Q = _lookup(table, hidden, left, right)
            at_Q, row_Q = np.flatnonzero(known_Q), row_Q[known_Q]
            num_Q, total_Q = table.starts[row_Q + 1] - table.starts[row_Q], table.totals[row_Q]
            p_QV[at_Q] *= (discount * num_Q / total_Q)[:, None]
            # The entries of all contexts that were found, one after the other.
            entry_E = np.repeat(table.starts[row_Q] - num_Q.cumsum() + num_Q, num_Q) + np.arange(num_Q.sum())
            left_over_E = (table.counts[entry_E] - discount) / np.repeat(total_Q, num_Q)
            p_QV[np.repeat(at_Q, num_Q), table.values[entry_E]] += left_over_E
            found[left, right] = p_QV
            yield p_QV

    def _bucket(self, hidden: HiddenBytes) -> NDArray[np.int64]:
        """In which bucket lies how often the longest usable context was seen, (Q,)."""
        bucket_Q = np.zeros(len(hidden), np.int64)
        left_Q, right_Q = self._seen(hidden.num_left), self._seen(hidden.num_right)
        for num_left, num_right in np.ndindex(*self.weights.shape[:2]):
            which_Q = (left_Q == num_left) & (right_Q == num_right)
            if which_Q.any():
                longest = self.contexts[self._usable(num_left, num_right)[-1]]
                row_Q, known_Q = _lookup(self.tables[longest], hidden.part(which_Q), *longest)
                totals_Q = self.tables[longest].totals[row_Q] * known_Q
                bucket_Q[which_Q] = np.searchsorted(_BUCKET_STARTS, totals_Q, side="right")
        return bucket_Q

    def _usable(self, num_left: int, num_right: int) -> list[int]:
        pairs = enumerate(self.contexts)
        return [index for index, (left, right) in pairs if left <= num_left and right <= num_right]

    def _seen(self, count_Q: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.minimum(count_Q, self.width)


def _joined(
    texts: Iterable[NDArray[np.uint8]],
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """All texts in one, and for each byte where its text starts and stops."""
    listed = list(texts)
    lengths = [len(text) for text in listed]
    stops = np.cumsum(lengths)
    return np.concatenate(listed), np.repeat(stops - lengths, lengths), np.repeat(stops, lengths)


def _count(
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    num_left: int,
    num_right: int,
) -> _Table:
    size = len(text) - num_left - num_right
    window = slice(num_left, num_left + size)
    places = np.arange(num_left, num_left + size)
    inside = (places - num_left >= start[window]) & (places + num_right < stop[window])
    key = np.zeros(size, np.uint64)
    for offset in [*range(-1, -num_left - 1, -1), *range(1, num_right + 1), 0]:
        key = (key << np.uint64(8)) | text[num_left + offset : num_left + offset + size]
    key, counts = np.unique(key[inside], return_counts=True)
    contexts, starts = np.unique(key >> np.uint64(8), return_index=True)
    return _Table(
        contexts=contexts,
        starts=np.append(starts, len(key)),
        values=(key & np.uint64(255)).astype(np.uint8),
        counts=counts,
        totals=np.add.reduceat(counts, starts),
    )


def _lookup(
    table: _Table, hidden: HiddenBytes, num_left: int, num_right: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The row of each hidden byte's context in a table, and whether it can be seen and was seen in training."""
    key = np.zeros(len(hidden), np.uint64)
    for value_Q in [*hidden.left.T[:num_left], *hidden.right.T[:num_right]]:
        key = (key << np.uint64(8)) | value_Q
    row_Q = np.searchsorted(table.contexts, key).clip(max=len(table.contexts) - 1)
    usable_Q = (hidden.num_left >= num_left) & (hidden.num_right >= num_right)
    return row_Q, usable_Q & (table.contexts[row_Q] == key)


def _batches(hidden: HiddenBytes) -> Iterator[HiddenBytes]:
    for first in range(0, len(hidden), _BATCH):
        yield hidden.part(slice(first, first + _BATCH))
