"""Perceiver AR with sequences, padding, caches and arguments of odd kinds: the right logits, or a refusal.

Each row is compared with its real tokens alone, a sequence that grows with what is read at once, the loss with its
formula.

Shape legend: B batch, T tokens, N latents, V vocabulary.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import DynamicCache

from fuzz.odd_tensors import NO_TENSORS, assert_close, copied, forms, generator, one_in, refused_if
from fuzz.trials import Refused, cases
from perceiver_io.causal.cache import LatentCache
from perceiver_io.tasks.autoregressive import PerceiverARForCausalLM
from tests.causal.models import KINDS, LATENTS, LENGTH, VOCABULARY, small_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:.*quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
]

NO_COUNTS = (-1, 1.5, "3", True, math.nan, (2,), torch.ones(2), b"1", 2**70, -(2**70))


def some(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


@functools.cache
def model(kind: str) -> PerceiverARForCausalLM:
    return small_model(kind).eval()


def conditions(draw: Any, kind: str, batch: int) -> dict[str, Any] | None:
    if "conditions" not in KINDS[kind] or draw(one_in(4)):
        return None
    if kind == "label":
        return {"label": torch.randint(3, (batch,), generator=generator(draw))}
    return {"picture": torch.randn(batch, 1, 2, 2, generator=generator(draw), dtype=torch.float64)}


def mask_of(draw: Any, batch: int, length: int) -> tuple[Any, bool]:
    """An attention mask, and whether it has to be refused."""
    kind = draw(some("none", "none", "left", "right", "left", "right", "middle", "odd"))
    if kind == "none":
        return None, False
    mask = torch.ones(batch, length, dtype=torch.bool)
    for row in mask.unbind():
        padding = draw(st.integers(0, length - 1))
        if kind == "left":
            row[:padding] = False
        elif kind == "right":
            row[length - padding :] = False
        else:
            row[torch.randperm(length, generator=generator(draw))[:padding]] = False
    if kind != "odd":
        return forms(draw, mask, keep=True).to(draw(some(torch.bool, torch.int64, torch.uint8))), False
    mask[-1] = False
    wrong: dict[str, Any] = {
        **{name: make(mask) for name, make in NO_TENSORS.items() if name not in ("nothing", "meta")},
        "padding alone": mask,
        "twos": mask.long() + 1,
        "float": mask.float(),
        "one axis": mask[0],
        "shorter": mask[:, 1:],
        "longer": torch.cat([mask, mask], dim=1),
        "another batch": torch.cat([mask, mask]),
    }
    return wrong[draw(some(*wrong))], True


@cases(few=40)
@given(data=st.data())
def test_sequences(data: st.DataObject) -> None:
    draw = data.draw
    kind = draw(some(*KINDS))
    made, batch, length = (
        model(kind),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 15 if kind == "pixels" else 16)),
    )
    ids: Any = torch.randint(VOCABULARY, (batch, length), generator=generator(draw))
    mask, wrong = mask_of(draw, batch, length)
    given_ids = forms(draw, ids).to(draw(some(torch.int64, torch.int32)))
    if draw(one_in(12)):
        odd: dict[str, Any] = {
            **{name: make(ids) for name, make in NO_TENSORS.items() if name != "meta"},
            "float": ids.double(),
            "bool": ids > 3,
            "uint8": ids.to(torch.uint8),
            "one axis": ids[0],
            "no tokens": ids[:, :0],
            "no samples": ids[:0],
            "three axes": ids[None],
            "outside": ids + VOCABULARY,
            "below": ids - VOCABULARY,
            "too long": ids.repeat(1, LENGTH + 1),
        }
        given_ids, wrong = odd[draw(some(*odd))], True
        mask = None
    arguments: dict[str, Any] = {}
    for name, right in (("num_latents", (None, 1, 2, LATENTS)), ("logits_to_keep", (0, 1, 3, 100))):
        if draw(st.booleans()):
            arguments[name] = draw(some(*right))
            if draw(one_in(10)):
                arguments[name] = draw(some(*NO_COUNTS))
                wrong = wrong or not (name == "logits_to_keep" and arguments[name] == 2**70)
    labels = None
    if draw(one_in(3)):
        labels = torch.where(torch.rand(ids.shape, generator=generator(draw)) < 0.3, -100, ids)
        if draw(one_in(6)):
            labels = draw(
                some(labels.int(), labels[:, 1:], labels + 200, labels - 300, labels.double(), "x", 5)
            )
            wrong = True
    given_conditions = conditions(draw, kind, batch)
    if draw(one_in(20)):
        given_conditions, wrong = (
            draw(some(5, "x", {"nobody": ids}, {"tokens": ids}, {5: ids}, torch.ones(2))),
            True,
        )
    torch.manual_seed(0)
    with torch.set_grad_enabled(draw(st.booleans())):
        answer = refused_if(
            wrong, made, given_ids, mask, labels=labels, conditions=given_conditions, **arguments
        )
    if isinstance(answer, Refused):
        return
    count = min(arguments.get("num_latents") or LATENTS, length)
    kept = arguments.get("logits_to_keep", 0)
    logits = answer.logits.detach()
    whole_count = count if not kept else min(kept, count)
    assert logits.shape == (batch, whole_count, VOCABULARY)
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    ids = copied(given_ids).long()
    with torch.no_grad():
        for row in range(batch):
            own = ids[row][real[row]][None]
            part = {key: x[row : row + 1] for key, x in (given_conditions or {}).items()}
            alone = made(own, conditions=part or None, num_latents=min(count, own.shape[1])).logits[0]
            number = min(len(alone), whole_count)
            assert_close(logits[row, -number:], alone[-number:], f"row {row} alone", tolerance=1e-9)
            assert logits[row, -number:].isfinite().all()
        if labels is not None and not kept:
            assert_close(answer.loss.detach(), loss_of(logits, ids, labels, real), "the loss", tolerance=1e-6)
        if mask is not None:
            other = torch.where(real, ids, draw(some(-1, 10**6, VOCABULARY)))
            again = made(other, mask, conditions=given_conditions, **arguments).logits
            assert torch.equal(again, logits), "ids of padding"
        if draw(st.booleans()) and mask is None:
            changed = ids.clone()
            changed[:, -1] = (changed[:, -1] + 1) % VOCABULARY
            later = made(changed, conditions=given_conditions, **arguments).logits
            assert_close(later[:, :-1], logits[:, :-1], "what comes before", tolerance=1e-9)


def loss_of(logits: Tensor, ids: Tensor, labels: Tensor, real: Tensor) -> Tensor:
    """The mean cross-entropy of what follows each real token, row by row with NumPy."""
    terms = []
    for row in range(len(ids)):
        own = labels[row][real[row]].numpy()
        rows = (
            logits[row, -len(own) :].float().double().numpy()
            if len(own) < logits.shape[1]
            else logits[row].float().double().numpy()
        )
        targets = own[len(own) - len(rows) + 1 :]
        for scores, target in zip(rows[:-1], targets, strict=True):
            if target != -100:
                terms.append(np.log(np.exp(scores).sum()) - scores[target])
    return torch.tensor(np.mean(terms) if terms else 0.0, dtype=torch.float32)


@cases(few=25)
@given(data=st.data())
def test_sequences_that_grow(data: st.DataObject) -> None:
    """Given in pieces to a cache, they are what the same latents say of the same window at once."""
    draw = data.draw
    kind = draw(some(*[name for name in KINDS if name != "pixels"]))
    made, batch = model(kind), draw(st.integers(1, 2))
    pieces = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    ids = torch.randint(VOCABULARY, (batch, sum(pieces)), generator=generator(draw))
    given_conditions = conditions(draw, kind, batch)
    wrong_cache = draw(one_in(15))
    cache: Any = None
    if wrong_cache:
        other = model("learned" if kind != "learned" else "rotary")
        filled = other(ids[:, :1], use_cache=True).past_key_values
        cache = draw(some(DynamicCache(), "x", 5, [], filled, LatentCache(7, filled.schedule)))
    elif draw(st.booleans()):
        schedule = made.latent_schedule(
            prompt_latents=draw(some(None, 1, 3, LATENTS)),
            refill_latents=draw(some(None, 1, 3, LATENTS)),
            num_conditions=made.count_conditions(given_conditions),
        )
        cache = LatentCache(made.perceiver.encoder.num_layers, schedule)
    start, padding = 0, draw(st.integers(0, pieces[0] - 1)) if draw(st.booleans()) else 0
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, :padding] = False
    with torch.set_grad_enabled(draw(one_in(4))):
        for piece in pieces:
            part = slice(start, start + piece)
            answer = refused_if(
                True if wrong_cache else None,
                made,
                forms(draw, ids[:, part].contiguous()) if not start and wrong_cache else ids[:, part],
                mask[:, part].long() if padding and not start else None,
                conditions=given_conditions if not start else None,
                past_key_values=cache,
                use_cache=draw(some(True, True, None)) if cache is not None else True,
            )
            if isinstance(answer, Refused):
                return
            cache, start = answer.past_key_values, start + piece
            assert answer.logits.isfinite().all()
            assert cache.get_seq_length() == start
    schedule = cache.schedule
    window = schedule.window(start)
    with torch.no_grad():
        count = schedule.num_latents(start)
        if (
            window < start and "conditions" not in KINDS[kind] and not KINDS[kind].get("tokens")
        ) or window == start:
            seen = ids[:, start - window : start]
            seen_mask = mask[:, start - window : start]
            at_once = made(
                seen,
                seen_mask if not seen_mask.all() else None,
                conditions=given_conditions,
                num_latents=min(count, LATENTS),
            ).logits
            assert_close(answer.logits[:, -1].detach(), at_once[:, -1], "the last token", tolerance=1e-8)


@cases(few=8)
@given(data=st.data())
def test_generation(data: st.DataObject) -> None:
    """The most likely tokens are the same with and without a cache, whatever the schedule."""
    draw = data.draw
    kind = draw(some(*KINDS))
    made, batch, length = model(kind), draw(st.integers(1, 2)), draw(st.integers(1, 6))
    ids = torch.randint(1, VOCABULARY, (batch, length), generator=generator(draw))  # 0 is taken for padding
    arguments: dict[str, Any] = {
        "max_new_tokens": draw(st.integers(1, 8)),
        "do_sample": False,
        "pad_token_id": 0,
    }
    wrong = False
    for name in ("prompt_latents", "refill_latents"):
        if draw(st.booleans()):
            arguments[name] = draw(some(None, 1, 2, LATENTS))
            if draw(one_in(6)):
                arguments[name] = draw(some(0, LATENTS + 1, *NO_COUNTS))
                wrong = True
    given_conditions = conditions(draw, kind, batch)
    if given_conditions:
        arguments["conditions"] = given_conditions
    if draw(st.booleans()) and batch == 2 and length > 1:
        mask = torch.ones_like(ids)
        mask[0, : draw(st.integers(1, length - 1))] = 0
        arguments["attention_mask"] = mask
    answers = []
    with torch.no_grad():
        for use_cache in (True, False):
            answer = refused_if(wrong, made.generate, ids, use_cache=use_cache, **arguments)
            if isinstance(answer, Refused):
                return
            answers.append(answer)
    first, second = answers
    assert torch.equal(first[:, :length], ids) and first.shape[1] == length + arguments["max_new_tokens"]
    assert torch.equal(first, second)
    assert (first >= 0).all() and (first < VOCABULARY).all()


@cases(few=15)
@given(data=st.data())
def test_positions_that_are_given(data: st.DataObject) -> None:
    draw = data.draw
    kind = draw(some("learned", "sinusoidal", "rotary", "pixels"))
    made, batch, length = model(kind), draw(st.integers(1, 2)), draw(st.integers(1, 9))
    ids = torch.randint(VOCABULARY, (batch, length), generator=generator(draw))
    start = draw(st.integers(0, 3))
    right = (torch.arange(length) + start).expand(batch, -1)
    odd = {
        "far": right + 10**6,
        "below": right - 10,
        "float": right.double(),
        "bool": right > 1,
        "one axis": right[0],
        "shorter": right[:, 1:],
        "a list": right.tolist(),
        "a number": 3,
        "int32": right.int(),
    }
    which = draw(some("right", "right", *odd))
    positions = right if which == "right" else odd[which]
    wrong: bool | None = True
    if which == "right":
        wrong = False
    elif which == "int32" or (which == "far" and kind in ("sinusoidal", "rotary")):
        wrong = None
    answer = refused_if(
        wrong, made, ids, position_ids=forms(draw, positions, keep=True) if which == "right" else positions
    )
    if isinstance(answer, Refused) or which != "right":
        return
    if start == 0 and torch.equal(copied(positions), right):
        alone = made(ids).logits
        assert_close(answer.logits.detach(), alone.detach(), "positions from 0", tolerance=1e-9)
