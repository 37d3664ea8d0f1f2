"""Windows of long sequences: each token is predicted once, and in training as often as the others."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from perceiver_io.tasks.autoregressive.collator import WindowCollator
from perceiver_io.tasks.autoregressive.model import IGNORED
from perceiver_io.tasks.autoregressive.windows import TokenWindows

MAX_LENGTH, NUM_LATENTS = 12, 5


def windows(*lengths: int, movable: bool) -> TokenWindows:
    """Documents whose tokens are all different."""
    edges = np.cumsum([0, *lengths])
    documents = [np.arange(start, end) for start, end in itertools.pairwise(edges)]
    return TokenWindows(documents, max_length=MAX_LENGTH, num_latents=NUM_LATENTS, movable=movable)


def predicted(rows: TokenWindows, *, train: bool) -> list[int]:
    """The tokens that a pass over all windows predicts."""
    collate = WindowCollator(pad_id=999, num_latents=NUM_LATENTS, train=train)
    found = []
    for window in rows:
        labels = collate([window])["labels"]
        found += labels[labels != IGNORED].tolist()
    return found


def test_an_evaluation_predicts_each_token_but_the_first_once() -> None:
    lengths = (1, 2, 5, 6, 12, 13, 40)
    firsts = np.cumsum([0, *lengths])[:-1]
    expected = sorted(set(range(sum(lengths))) - set(firsts.tolist()))
    assert sorted(predicted(windows(*lengths, movable=False), train=False)) == expected


def test_an_evaluation_sees_as_much_as_the_model_reads() -> None:
    for window in windows(40, movable=False):
        assert len(window.tokens) == min(MAX_LENGTH, window.tokens[-1] + 1)


def test_training_predicts_tokens_anywhere_about_as_often() -> None:
    torch.manual_seed(0)
    rows, passes = windows(41, movable=True), 400
    counts = np.zeros(41)
    for _ in range(passes):
        np.add.at(counts, predicted(rows, train=True), 1)
    assert counts[0] == 0
    assert counts[1:].min() > 0.45 * passes and counts[1:].max() < 2.01 * passes
    assert 0.95 * passes < counts[1:].mean() < 1.1 * passes


def test_training_windows_are_parts_of_documents_and_move() -> None:
    torch.manual_seed(0)
    collate = WindowCollator(pad_id=999, num_latents=NUM_LATENTS, train=True)
    rows = windows(41, movable=True)
    starts = set()
    for _ in range(50):
        (ids,) = collate([rows[5]])["input_ids"].tolist()
        assert ids == list(range(ids[0], ids[0] + MAX_LENGTH))
        starts.add(ids[0])
    assert len(starts) == NUM_LATENTS - 1
