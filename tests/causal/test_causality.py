"""No output of a Perceiver AR depends on a later input, and padding changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from perceiver_io.causal.causal_attention import causal_attention
from perceiver_io.tasks.autoregressive import PerceiverARForCausalLM
from tests.causal.models import KINDS, LATENTS, LENGTH, conditions, small_model, tokens


def embedded(model: PerceiverARForCausalLM) -> list[Tensor]:
    """Makes the model's tokens' vectors leaves of their own, whose gradients say what depends on what."""
    adapter: Any = model.perceiver.adapters["tokens"]
    kept, embed = [], adapter.embed

    def leaf(ids: Tensor, positions: Tensor) -> Tensor:
        x = embed(ids, positions).detach().requires_grad_()
        kept.append(x)
        return x

    adapter.embed = leaf
    return kept


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", ["none", "left", "right", "into the latents"])
def test_no_output_depends_on_a_later_input(kind: str, padding: str) -> None:
    model = small_model(kind)
    length = 14
    count = {"none": 0, "left": 3, "right": 3, "into the latents": 10}[padding]
    ids = tokens(2, length)
    mask = torch.ones_like(ids, dtype=torch.bool)
    if count:
        mask[0, length - count :] = padding != "right"
        mask[0, :count] = padding == "right"
    leaves = embedded(model)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(ids, mask, position_ids=positions, conditions=conditions(kind, 2)).logits
    (elements,) = leaves
    for row in range(2):
        real = mask[row].nonzero().flatten() if padding == "right" else torch.arange(length)
        real_places = [place for place in real.tolist() if mask[row, place]]
        last = real_places[-LATENTS:]
        for latent, place in enumerate(reversed(last)):
            out = logits[row, LATENTS - 1 - latent]
            (gradient,) = torch.autograd.grad(out.square().sum(), elements, retain_graph=True)
            touched = gradient[row].abs().amax(dim=-1)
            order = sorted(range(length), key=lambda at: (bool(mask[row, at]), at))  # padding first
            at = order.index(place)
            if padding == "right":  # elements are aligned after they were embedded
                where = [order.index(one) for one in real_places]
                own = where[real_places.index(place)]
                assert all(touched[w] == 0 for w in where if w > own), (row, latent)
                assert touched[own] > 0
            else:
                assert (touched[place + 1 :] == 0).all() and touched[place] > 0
                assert (touched[~mask[row]] == 0).all()
            assert at >= 0
        assert not gradient[1 - row].any()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing_and_each_row_equals_itself_alone(kind: str) -> None:
    model = small_model(kind)
    lengths = [14, 9, 4, 1]  # one is shorter than the latents are many
    rows = [tokens(1, length, seed=length) for length in lengths]
    for side in ("left", "right"):
        ids = torch.zeros(len(rows), max(lengths), dtype=torch.int64)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for index, row in enumerate(rows):
            place = slice(max(lengths) - row.shape[1], None) if side == "left" else slice(row.shape[1])
            ids[index, place], mask[index, place] = row[0], True
        given = conditions(kind, len(rows))
        together = model(ids, mask.long(), conditions=given).logits
        for index, row in enumerate(rows):
            own = None if given is None else {name: x[index : index + 1] for name, x in given.items()}
            alone = model(row, conditions=own).logits[0]
            count = min(len(alone), row.shape[1])
            torch.testing.assert_close(together[index, -count:], alone[-count:], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_latents_are_a_part_of_what_more_say_at_the_first_of_them(kind: str) -> None:
    model = small_model(kind)
    ids = tokens(2, 14)
    one = model(ids, num_latents=1, conditions=conditions(kind, 2)).logits
    first = model(ids[:, :-3], num_latents=1, conditions=conditions(kind, 2)).logits
    four = model(ids, num_latents=4, conditions=conditions(kind, 2)).logits
    torch.testing.assert_close(four[:, 0], first[:, 0], rtol=0, atol=1e-10)
    assert (four[:, -1] - one[:, -1]).abs().max() > 1e-3  # those before it are seen


@pytest.mark.parametrize("shape", [(1, 9), (5, 5), (5, 12), (3, 40)])
@pytest.mark.parametrize("masked", [0, 2, 4, 39])
def test_attention_in_two_parts_is_that_with_a_mask(shape: tuple[int, int], masked: int) -> None:
    num_queries, num_keys = shape
    torch.manual_seed(0)
    inputs = [
        torch.randn(2, 3, count, 4, dtype=torch.float64, requires_grad=True)
        for count in (num_queries, num_keys, num_keys)
    ]
    mask = torch.ones(2, num_keys, dtype=torch.bool)
    mask[0, : min(masked, num_keys - 1)] = False
    queries, keys, values = inputs
    logits = torch.einsum("bhne,bhme->bhnm", queries, keys) / 2
    own = torch.arange(num_keys - num_queries, num_keys)[:, None]
    place = torch.arange(num_keys)
    seen = ((place <= own) & mask[:, None]) | (place == own)
    expected = logits.masked_fill(~seen[:, None], -torch.inf).softmax(-1) @ values
    found = causal_attention(*inputs, mask if masked else None)
    torch.testing.assert_close(found, expected)
    out = torch.randn_like(found)
    for a, b in zip(
        torch.autograd.grad(found, inputs, out), torch.autograd.grad(expected, inputs, out), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_gradients_of_attention_are_those_of_differences() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(1, 2, count, 4, dtype=torch.float64, requires_grad=True) for count in (3, 7, 7)]
    mask = torch.tensor([[False, True, False, True, True, True, True]])
    assert torch.autograd.gradcheck(lambda *x: causal_attention(*x, mask), inputs)


def test_dropout_is_of_weights() -> None:
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(1, 1, count, 4) for count in (3, 7, 7))
    whole = causal_attention(queries, keys, values)
    dropped = torch.stack([causal_attention(queries, keys, values, dropout=0.5) for _ in range(2000)])
    assert dropped.std(dim=0).max() > 0.1
    torch.testing.assert_close(dropped.mean(dim=0), whole, rtol=0, atol=0.1)


@pytest.mark.parametrize("form", ["exact", "bernoulli"])
def test_prefix_dropout(form: str) -> None:
    model = small_model("rotary", prefix_dropout=0.5, prefix_dropout_form=form)
    ids = tokens(2, LENGTH)
    whole = model(ids).logits
    model.train()
    torch.manual_seed(0)
    first, second = model(ids).logits, model(ids).logits
    assert not torch.allclose(first, second) and not torch.allclose(first, whole)
    assert not torch.allclose(first[0], first[1])
    # Without a prefix there is nothing that "exact" could leave out.
    short = ids[:, :LATENTS]
    same = torch.allclose(model(short).logits, model.eval()(short).logits)
    assert same == (form == "exact")


def test_exact_prefix_dropout_leaves_out_the_part_rounded_down_in_order() -> None:
    model = small_model("rotary", prefix_dropout=0.4)
    encoder: Any = model.perceiver.encoder
    elements = torch.arange(2 * 13).double().view(2, 13, 1)
    mask = torch.ones(2, 13, dtype=torch.bool)
    mask[1, :3] = False
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    torch.manual_seed(0)
    seen = set()
    for _ in range(200):
        kept, at, real = encoder._without_some(elements, positions, mask, 3)
        # 10 - floor(4.0) and 7 - floor(2.8) before the latents; fewer are filled up, and masked
        assert real.sum(dim=1).tolist() == [6 + 3, 5 + 3]
        for row in range(2):
            values = kept[row, real[row], 0] - 13 * row
            assert (values.diff() > 0).all() and values[-3:].tolist() == [10, 11, 12]
            assert torch.equal(at[row, real[row]], positions[row][values.long()])
        seen.update(kept[0, :-3, 0].tolist())
    assert seen == set(range(10))


def test_loss_is_the_mean_cross_entropy_of_the_tokens_that_follow() -> None:
    model = small_model("rotary")
    ids = tokens(3, 10)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, :7] = False
    labels = ids.clone()
    labels[1, -1] = -100
    found = model(ids, mask, labels=labels)
    terms = []
    log_probabilities = found.logits.log_softmax(-1)
    for row in range(3):
        for place in range(10 - LATENTS + 1, 10):
            if mask[row, place] and mask[row, place - 1] and labels[row, place] >= 0:
                latent = place - 1 - (10 - LATENTS)
                terms.append(-log_probabilities[row, latent, ids[row, place]])
    # The first real token of a padded row is the target of a latent on padding, which says nothing.
    torch.testing.assert_close(found.loss.double(), torch.stack(terms).mean(), rtol=1e-6, atol=0)
