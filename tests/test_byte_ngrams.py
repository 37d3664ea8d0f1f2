"""The n-grams of the benchmarks agree with counting in plain Python; what is reported of them is worth as much."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PerceiverTokenizer

from perceiver_io.tasks.masked_language_modeling.masking import MaskingCollator

TRAINING = [b"abracadabra", b"ab", b"cabbage and bread", b"a"]
TEXTS = [b"a bread and", b"crab", b"xyz abba"]
ORDER, REACH = 3, 2


@pytest.fixture(scope="module")
def ngrams() -> ModuleType:
    file = Path(__file__).parent.parent / "benchmarks" / "byte_ngrams.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def arrays(texts: list[bytes]) -> list[Any]:
    return [np.frombuffer(text, np.uint8) for text in texts]


def visible(text: bytes, hidden: set[int], place: int, left: int, right: int) -> tuple[bytes, bytes] | None:
    """The context of a place, or None where it is not whole or a byte of it is hidden."""
    around = [*range(place - left, place), *range(place + 1, place + right + 1)]
    if any(near < 0 or near >= len(text) or near in hidden for near in around):
        return None
    return text[place - left : place], text[place + 1 : place + right + 1]


def probability(text: bytes, hidden: set[int], place: int, left: int, right: int, byte: int) -> float:
    """What the documentation says, word for word, with a discount of 0.75."""
    shorter = [
        probability(text, hidden, place, *one, byte)
        for one in ((left - 1, right), (left, right - 1))
        if min(one) >= 0
    ]
    backed_off = sum(shorter) / len(shorter) if shorter else 1 / 256
    context = visible(text, hidden, place, left, right)
    counts: Counter[int] = Counter()
    for document in TRAINING:
        for at in range(len(document)):
            if context is not None and visible(document, set(), at, left, right) == context:
                counts[document[at]] += 1
    total = counts.total()
    if not total:
        return backed_off
    return max(counts[byte] - 0.75, 0) / total + 0.75 * len(counts) / total * backed_off


def test_agrees_with_plain_python(ngrams: ModuleType) -> None:
    collate = MaskingCollator(PerceiverTokenizer(), probability=0.3)
    batch = collate(arrays(TEXTS))
    hidden = ngrams.hidden_bytes([batch], first_byte=collate.first_byte, width=REACH)
    model = ngrams.NgramModel(arrays(TRAINING), order=ORDER, reach=REACH)
    assert sorted(model.contexts) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    # All weight on the longest context, instead of what would be fitted.
    number = 0
    found = [p_QV.copy() for p_QV in model._by_context(hidden)]
    for row, text in enumerate(TEXTS):
        counts = batch["labels"][row] != -100
        places = [place - 1 for place in batch["positions"][row][counts].tolist()]
        for place in places:
            assert hidden.target[number] == text[place]
            for index, (left, right) in enumerate(model.contexts):
                for byte in {text[place], *b"abz"}:
                    expected = probability(text, set(places), place, left, right, byte)
                    assert found[index][number, byte] == pytest.approx(expected, rel=1e-12)
            number += 1
    assert number == len(hidden)


def test_distributions_are_distributions_before_and_after_fitting(ngrams: ModuleType) -> None:
    collate = MaskingCollator(PerceiverTokenizer(), probability=0.3)
    batches = [collate(arrays(TEXTS)) for _ in range(200)]
    hidden = ngrams.hidden_bytes(batches, first_byte=collate.first_byte, width=REACH)
    model = ngrams.NgramModel(arrays(TRAINING), order=ORDER, reach=REACH)
    before = model.evaluate(hidden)[0].mean()
    for _ in range(2):
        distribution_QV = model.distribution(hidden)
        assert (distribution_QV > 0).all()
        np.testing.assert_allclose(distribution_QV.sum(axis=1), 1, rtol=1e-12)
        bits, hits = model.evaluate(hidden)
        probability_Q = distribution_QV[np.arange(len(hidden)), hidden.target]
        np.testing.assert_allclose(2.0**-bits, probability_Q, rtol=1e-12)
        assert (hits == (distribution_QV.argmax(axis=1) == hidden.target)).all()
        model.fit(hidden)
    assert model.evaluate(hidden)[0].mean() < before


def test_what_is_hidden_is_not_looked_at(ngrams: ModuleType) -> None:
    model = ngrams.NgramModel(arrays(TRAINING), order=ORDER, reach=REACH)
    found = []
    for text in (b"abracadabra", b"abzacazabra"):
        batch = {
            "input_ids": torch.tensor([[4, *(byte + 6 for byte in text), 5]]),
            "positions": torch.tensor([[3, 7]]),
            "labels": torch.tensor([[text[2] + 6, text[6] + 6]]),
        }
        batch["input_ids"][0, [3, 7]] = 3
        found.append(model.distribution(ngrams.hidden_bytes([batch], first_byte=6, width=REACH)))
    assert np.array_equal(*found)


@pytest.mark.parametrize("order", [-1, 8])
def test_contexts_that_do_not_fit_an_integer_are_refused(ngrams: ModuleType, order: int) -> None:
    with pytest.raises(ValueError, match=f"order is {order}, expected 0 to 7"):
        ngrams.NgramModel(arrays(TRAINING), order=order, reach=REACH)
