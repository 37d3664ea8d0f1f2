"""What is hidden, what is asked for, and that seeds decide it."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import PerceiverTokenizer

from perceiver_io.running.batches import SeededBatches
from perceiver_io.tasks.masked_language_modeling.masking import MaskingCollator, word_starts

TOKENIZER = PerceiverTokenizer()
SENTENCE = b"The cat sat on the mat, and the dog beside it."


def rows(*texts: bytes) -> list[NDArray[np.uint8]]:
    return [np.frombuffer(text, np.uint8) for text in texts]


def collate(*texts: bytes, **settings: Any) -> dict[str, torch.Tensor]:
    return MaskingCollator(TOKENIZER, **settings)(rows(*texts))


def hidden(batch: dict[str, torch.Tensor], row: int = 0) -> list[int]:
    """The places of a text's hidden bytes, from 0 at its first byte."""
    counts = batch["labels"][row] != -100
    return [place - 1 for place in batch["positions"][row][counts].tolist()]


@given(texts=st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=5), whole_words=st.booleans())
def test_labels_are_the_bytes_and_masks_stand_exactly_there(texts: list[bytes], whole_words: bool) -> None:
    batch = collate(*texts, probability=0.3, whole_words=whole_words)
    for row, text in enumerate(texts):
        counts = batch["labels"][row] != -100
        places, labels = batch["positions"][row], batch["labels"][row]
        # Bytes are moved up by the six special tokens; what is hidden is put back.
        ids = [4, *(byte + 6 for byte in text), 5]
        got = batch["input_ids"][row].tolist()
        masked = [place for place, token in enumerate(got) if token == TOKENIZER.mask_token_id]
        assert masked == places[counts].tolist()
        for place, label in zip(places[counts].tolist(), labels[counts].tolist(), strict=True):
            assert label == ids[place]
            got[place] = label
        assert got[: len(ids)] == ids
        assert set(got[len(ids) :]) <= {TOKENIZER.pad_token_id}
        # What a shorter text has no label for stands at the end, and asks for [CLS].
        assert not places[~counts].any() and counts.tolist() == sorted(counts.tolist(), reverse=True)
    assert all(batch[name].dtype == torch.int64 for name in ("input_ids", "positions", "labels"))


def test_the_tokenizer_agrees_on_what_is_put_back() -> None:
    texts = ["Zürich", "ab", "\x00\n é"]
    batch = collate(*(text.encode() for text in texts))
    padding = batch["labels"] == -100
    batch["labels"][padding] = TOKENIZER.cls_token_id
    got = batch["input_ids"].scatter(1, batch["positions"], batch["labels"])
    assert torch.equal(got, TOKENIZER(texts, padding=True, return_tensors="pt")["input_ids"])


def test_padding_is_masked() -> None:
    batch = collate(b"a" * 7, b"bc", b"d" * 5)
    assert batch["input_ids"].shape == (3, 9)
    assert batch["attention_mask"].dtype == torch.bool
    assert batch["attention_mask"].sum(1).tolist() == [9, 4, 7]
    assert torch.equal(batch["attention_mask"], batch["input_ids"] != TOKENIZER.pad_token_id)
    assert "attention_mask" not in collate(b"abc", b"def")


@pytest.mark.parametrize(
    ("length", "probability", "expected"),
    [
        (100, 0.15, 15),
        (254, 0.15, 38),
        (254, 0.3, 76),
        (10, 0.01, 1),
        (1, 0.15, 1),
        (1, 0.99, 1),
        (20, 0.5, 10),
    ],
)
def test_exactly_the_share_is_hidden(length: int, probability: float, expected: int) -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        places = hidden(collate(bytes(length), probability=probability))
        assert len(set(places)) == len(places) == expected
        assert set(places) <= set(range(length))


def test_every_byte_is_hidden_as_often_as_the_others() -> None:
    counts = np.zeros(20)
    for _ in range(2000):
        counts[hidden(collate(bytes(20), probability=0.15))] += 1
    # Three of twenty each time: 300 times each; five standard deviations.
    assert np.abs(counts - 300).max() < 5 * np.sqrt(2000 * 0.15 * 0.85)


# Whole words


@given(text=st.text(alphabet="ab \n\té", min_size=1, max_size=30))
def test_words_begin_where_a_regular_expression_finds_them(text: str) -> None:
    content = text.encode()
    # White space and a word; at the end white space alone, which goes with the last word.
    words = re.findall(rb"[ \t\n\r\v\f]*[^ \t\n\r\v\f]+(?:[ \t\n\r\v\f]+\Z)?|\A[ \t\n\r\v\f]+\Z", content)
    assert b"".join(words) == content
    expected = np.cumsum([0, *map(len, words)])[:-1]
    assert word_starts(np.frombuffer(content, np.uint8)).tolist() == expected.tolist()


@pytest.mark.parametrize("probability", [0.01, 0.15, 0.5, 0.99])
def test_only_whole_words_are_hidden_until_the_share_is_reached(probability: float) -> None:
    words = re.findall(rb"\s*\S+", SENTENCE)
    edges = np.cumsum([0, *map(len, words)])
    wanted = max(1, round(probability * len(SENTENCE)))
    chosen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        places = hidden(collate(SENTENCE, probability=probability, whole_words=True))
        assert places == sorted(places)
        whole = [
            number
            for number, (start, stop) in enumerate(itertools.pairwise(edges))
            if set(range(start, stop)) <= set(places)
        ]
        assert sum(len(words[number]) for number in whole) == len(places)
        # The share is reached, and without one of the words it would not be.
        assert len(places) >= wanted > len(places) - max(len(words[number]) for number in whole)
        chosen.add(tuple(whole))
    assert len(chosen) > 5 or probability == 0.99


@pytest.mark.parametrize("text", [b"word", b"  word", b"word ", b" \n\t ", b" ", b"w", b" w "])
def test_a_text_of_one_word_is_hidden_whole(text: bytes) -> None:
    batch = collate(text, probability=0.15, whole_words=True)
    assert hidden(batch) == list(range(len(text)))
    assert batch["input_ids"].tolist() == [[4, *[3] * len(text), 5]]


# Random cuts


def test_longer_texts_are_cut_at_random_places() -> None:
    text = bytes(range(100, 107))
    starts = set()
    for _ in range(200):
        batch = collate(text, length=4, probability=0.01)
        ids = batch["input_ids"][0]
        ids[batch["positions"][0]] = batch["labels"][0]
        got = [token - 6 for token in ids[1:-1].tolist()]
        assert got == list(range(got[0], got[0] + 4))
        starts.add(got[0])
    assert starts == {100, 101, 102, 103}


def test_texts_that_fit_stay_whole() -> None:
    batch = collate(b"abcd", b"ab", length=4)
    assert batch["attention_mask"].sum(1).tolist() == [6, 4]


# Seeds


def test_the_global_seed_decides() -> None:
    def draw(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return collate(SENTENCE, SENTENCE, length=30)

    first, again, other = draw(0), draw(0), draw(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["positions"], other["positions"])
    assert not torch.equal(first["positions"][0], first["positions"][1])


def test_an_evaluation_hides_the_same_bytes_each_time() -> None:
    data = rows(SENTENCE, SENTENCE[::-1])

    def batch(seed: int) -> Any:
        torch.rand(7)  # whatever was drawn before
        return SeededBatches(data, MaskingCollator(TOKENIZER), seed=seed).__getitems__([0, 1])

    assert torch.equal(batch(3)["input_ids"], batch(3)["input_ids"])
    assert not torch.equal(batch(3)["input_ids"], batch(4)["input_ids"])
