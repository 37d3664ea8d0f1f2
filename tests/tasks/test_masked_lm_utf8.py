from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.tasks.masked_language_modeling.utf8 import most_probable_text


def is_text(values: bytes) -> bool:
    try:
        values.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def certain(values: bytes) -> np.ndarray:
    """Log-probabilities of a model that is sure of each byte."""
    scores = np.full((len(values), 256), -50.0)
    scores[range(len(values)), list(values)] = 0.0
    return scores


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_the_best_of_all_sequences_is_found(length: int) -> None:
    """Beside a search through all sequences of bytes of every kind, decoded by Python."""
    alphabet = bytes.fromhex("41 80 8f 90 9f a0 bf c0 c3 e0 e2 ed f0 f1 f4 f5")
    for seed in range(4):
        scores = np.random.default_rng(seed).normal(size=(length, 256))
        found = most_probable_text(np.where(np.isin(range(256), list(alphabet)), scores, scores - 1e6))
        best = max(
            (one for one in itertools.product(alphabet, repeat=length) if is_text(bytes(one))),
            key=lambda one: scores[range(length), list(one)].sum(),
        )
        assert found == bytes(best)


def test_every_character_of_one_or_two_bytes_is_let_through() -> None:
    for first in range(256):
        assert (most_probable_text(certain(bytes([first]))) == bytes([first])) == is_text(bytes([first]))
    for pair in itertools.product(range(0, 256, 3), range(256)):
        assert (most_probable_text(certain(bytes(pair))) == bytes(pair)) == is_text(bytes(pair))


@given(st.text(max_size=12))
def test_any_text_can_come_out(text: str) -> None:
    assert most_probable_text(certain(text.encode())).decode() == text


@given(st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_what_comes_out_is_text(seed: int, length: int) -> None:
    scores = np.random.default_rng(seed).normal(scale=10, size=(length, 256))
    found = most_probable_text(scores)
    assert len(found) == length and is_text(found)
    greedy = bytes(scores.argmax(-1).tolist())
    assert found == greedy or not is_text(greedy)


@pytest.mark.parametrize(
    "scores",
    [np.zeros(256), np.zeros((3, 262)), np.full((2, 256), np.nan), np.full((2, 256), -np.inf)],
)
def test_bad_scores(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"Expected log-probabilities|expected finite numbers"):
        most_probable_text(scores)
