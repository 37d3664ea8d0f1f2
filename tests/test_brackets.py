"""Brackets: nine ways to compute one attention, all the same as what is written down here in float64."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from perceiver_io import fused_attention as fused_attention_module
from perceiver_io.attention import MultiHeadAttention
from perceiver_io.brackets import Brackets, Layers, apply_layers, choose_brackets, fold_layers, folding_pays
from perceiver_io.cross_attention import CrossAttention, QueryChunks
from perceiver_io.fused_attention import fused_attention
from perceiver_io.layers import linear
from perceiver_io.testing import Operations

ALL = [
    Brackets(left, right)
    for left, right in itertools.product(("projected", "keys", "queries"), ("projected", "values", "outputs"))
]
NAMES = [f"{brackets.logits}-{brackets.values}" for brackets in ALL]
WIDTHS = {
    "query_channels": 5,
    "input_channels": 6,
    "num_heads": 1,
    "qk_channels": 4,
    "v_channels": 7,
    "output_channels": 3,
}


def attention(**fields: Any) -> MultiHeadAttention:
    module = MultiHeadAttention(**WIDTHS | fields).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.7)  # biases too
    return module


def forced(module: MultiHeadAttention, brackets: Brackets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "brackets", lambda **sizes: brackets)


def explicit(
    module: MultiHeadAttention,
    queries: Tensor,
    inputs: Tensor,
    mask: Tensor | None = None,
    query_mask: Tensor | None = None,
) -> Tensor:
    """One head, as the paper writes it."""
    q = queries @ module.query.weight.T + module.query.bias
    k = inputs @ module.key.weight.T + module.key.bias
    v = inputs @ module.value.weight.T + module.value.bias
    logits = torch.einsum("bne,bme->bnm", q, k) / math.sqrt(q.shape[-1])
    if mask is not None:
        logits = logits.masked_fill(~mask[:, None], -math.inf)
    attended = torch.einsum("bnm,bmf->bnf", torch.softmax(logits, dim=-1), v)
    if query_mask is not None:
        attended = attended * query_mask[..., None]
    return attended @ module.output.weight.T + module.output.bias


def arrays() -> tuple[Tensor, Tensor, Tensor]:
    """Queries, inputs, and a mask of the inputs."""
    mask = torch.tensor([[True, False, True, True, False, True], [True, True, True, True, False, False]])
    return torch.randn(2, 4, 5).double(), torch.randn(2, 6, 6).double(), mask


def num_flops(brackets: Brackets | None, *, num_queries: int, num_inputs: int, widths: dict[str, int]) -> int:
    """Counted by torch; with its plain product for the attention, which is one that it can count."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        module = MultiHeadAttention(num_heads=1, **widths)
        if brackets is not None:
            module.brackets = lambda **sizes: brackets
        queries = torch.zeros(1, num_queries, widths["query_channels"])
        inputs = torch.zeros(1, num_inputs, widths["input_channels"])
        with Operations() as counter:
            module(queries, inputs)
    return counter.total


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("brackets", ALL, ids=NAMES)
def test_all_brackets_are_the_same_attention_with_the_same_gradients(
    brackets: Brackets, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = attention()
    forced(module, brackets, monkeypatch)
    queries, inputs, mask = arrays()
    queries.requires_grad_()
    inputs.requires_grad_()
    ours = module(queries, inputs, mask if masked else None)
    theirs = explicit(module, queries, inputs, mask if masked else None)
    torch.testing.assert_close(ours, theirs)
    leaves = [queries, inputs, *module.parameters()]
    weights = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad((ours * weights).sum(), leaves),
        torch.autograd.grad((theirs * weights).sum(), leaves),
    )


@pytest.mark.parametrize("brackets", ALL, ids=NAMES)
def test_inputs_are_prepared_once_for_any_number_of_queries(
    brackets: Brackets, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = attention()
    forced(module, brackets, monkeypatch)
    queries, inputs, mask = arrays()
    query_mask = torch.tensor([[True, False, True, True], [False, True, True, False]])
    prepared = module.prepare(inputs, mask, num_queries=4)
    assert prepared.brackets == brackets
    chunks = [
        module(queries[:, chunk], prepared, query_mask_BN=query_mask[:, chunk])
        for chunk in (slice(0, 3), slice(3, 4))
    ]
    joined = torch.cat(chunks, dim=1)
    torch.testing.assert_close(joined, explicit(module, queries, inputs, mask, query_mask))
    torch.testing.assert_close(joined[~query_mask], module.output.bias.expand(3, -1))


@pytest.mark.parametrize("brackets", ALL, ids=NAMES)
def test_half_precision_differs_by_its_rounding_only(
    brackets: Brackets, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = attention()
    queries, inputs, mask = arrays()
    expected = explicit(module, queries, inputs, mask)
    module.bfloat16()
    forced(module, brackets, monkeypatch)
    ours = module(queries.bfloat16(), inputs.bfloat16(), mask)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.double(), expected, atol=0.15, rtol=0.05)


def test_a_key_bias_that_changes_nothing_gets_a_gradient_of_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    module = attention()
    forced(module, Brackets(logits="queries"), monkeypatch)
    queries, inputs, _ = arrays()
    module(queries, inputs).square().sum().backward()
    assert module.key.bias.grad is not None
    assert not module.key.bias.grad.any()


@pytest.mark.parametrize("many_queries", [False, True])
def test_several_heads_stay_as_written(many_queries: bool) -> None:
    module = attention(num_heads=2, qk_channels=2, v_channels=4, input_channels=64)
    prepared = module.prepare(torch.randn(2, 9, 64).double(), num_queries=10_000 if many_queries else 1)
    assert prepared.brackets == Brackets("projected", "projected")
    assert (prepared.keys.shape, prepared.values.shape) == ((2, 2, 9, 1), (2, 2, 9, 2))


@pytest.mark.parametrize(
    ("num_queries", "num_inputs"), [(1, 500), (500, 1)], ids=["few queries", "few inputs"]
)
def test_dropout_drops_weights_whatever_the_brackets(num_queries: int, num_inputs: int) -> None:
    """All values are the same, so that what comes out is their sum of the weights that were kept."""
    module = attention(dropout=0.5, qk_channels=64, v_channels=64, output_channels=2)
    nn.init.zeros_(module.value.weight)
    queries, inputs = torch.randn(2, num_queries, 5).double(), torch.randn(2, num_inputs, 6).double()
    chosen = module.eval().prepare(inputs, num_queries=num_queries).brackets
    assert chosen.values == ("outputs" if num_inputs > 1 else "values")
    whole = explicit(module, queries, inputs)
    torch.testing.assert_close(module(queries, inputs), whole)
    module.train()
    draws = torch.stack([module(queries, inputs) for _ in range(2 if num_inputs == 1 else 400)])
    kept = (draws - module.output.bias) / (whole - module.output.bias)
    if num_inputs == 1:  # either dropped, or kept and doubled
        assert 0.4 < (kept > 1).double().mean() < 0.6
        torch.testing.assert_close(kept, torch.where(kept > 1, 2.0, 0.0).double())
    else:
        assert kept.std() > 0.02
        assert kept.mean().item() == pytest.approx(1, abs=0.05)


# N, M, D, C, E = F, O of attentions with one head, full size: the arithmetic is counted, not done.
PUBLISHED = {
    "flow encoder": (2048, 182_528, 512, 322, 322, 512),
    "flow decoder": (182_528, 2048, 322, 512, 512, 322),
    "multimodal encoder": (784, 52_097, 512, 704, 704, 512),
    "multimodal decoder": (804_737, 784, 1026, 512, 512, 1026),
    "vision encoder": (512, 50_176, 1024, 261, 261, 1024),
    "vision decoder": (1, 512, 1024, 1024, 1024, 1024),
}


@pytest.mark.parametrize("sizes", PUBLISHED.values(), ids=PUBLISHED)
def test_chosen_brackets_take_the_fewest_operations_in_the_published_models(sizes: tuple[int, ...]) -> None:
    num_queries, num_inputs, query_channels, input_channels, width, output_channels = sizes
    widths = {
        "query_channels": query_channels,
        "input_channels": input_channels,
        "qk_channels": width,
        "v_channels": width,
        "output_channels": output_channels,
    }
    with torch.device("meta"):
        counts = {
            brackets: num_flops(brackets, num_queries=num_queries, num_inputs=num_inputs, widths=widths)
            for brackets in (None, *ALL)
        }
    assert counts[None] == min(counts.values())
    assert counts[None] < counts[Brackets()]


def test_brackets_save_a_third_and_more_of_the_attention_in_the_flow_decoder() -> None:
    """The number that the published measurements give for it."""
    widths = {
        "query_channels": 322,
        "input_channels": 512,
        "qk_channels": 512,
        "v_channels": 512,
        "output_channels": 322,
    }
    with torch.device("meta"):
        chosen = num_flops(None, num_queries=182_528, num_inputs=2048, widths=widths)
    as_written = 2 * 182_528 * (322 * 512 + 2 * 2048 * 512 + 512 * 322) + 2 * 2048 * 2 * 512 * 512
    assert chosen < 0.6 * as_written


@settings(max_examples=10)
@given(
    sizes=st.tuples(*[st.integers(1, 40)] * 2),
    channels=st.tuples(*[st.integers(1, 24)] * 5),
)
def test_chosen_brackets_take_the_fewest_operations_of_any_sizes(
    sizes: tuple[int, int], channels: tuple[int, ...]
) -> None:
    names = ("query_channels", "input_channels", "qk_channels", "v_channels", "output_channels")
    widths = dict(zip(names, channels, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_attention_module, "_MANY_WEIGHTS", 0)  # as for sizes at which it matters
        counts = {
            brackets: num_flops(brackets, num_queries=sizes[0], num_inputs=sizes[1], widths=widths)
            for brackets in ALL
        }
    chosen = choose_brackets(num_queries=sizes[0], num_inputs=sizes[1], **widths)
    assert counts[chosen] == min(counts.values())


def test_of_equals_what_is_written_is_chosen() -> None:
    """A projection of one output is as dear on either side."""
    chosen = choose_brackets(
        num_queries=1,
        num_inputs=1,
        query_channels=2,
        input_channels=1,
        qk_channels=1,
        v_channels=1,
        output_channels=1,
    )
    assert chosen == Brackets("projected", "projected")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("widths", [(3, 7), (7, 3), (4, 4)])
def test_many_weights_take_the_fused_kernel_and_are_the_same(
    widths: tuple[int, int], masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    kernel = fused_attention_module.scaled_dot_product_attention

    def spy(*arguments: Tensor, **options: Any) -> Tensor:
        seen.append(tuple(x.shape[-1] for x in arguments))
        return kernel(*arguments, **options)

    monkeypatch.setattr(fused_attention_module, "scaled_dot_product_attention", spy)
    monkeypatch.setattr(fused_attention_module, "_MANY_WEIGHTS", 2 * 2 * 4 * 6 - 1)
    width, num_values = widths
    q, k, v = (
        torch.randn(2, 2, *shape).double().requires_grad_()
        for shape in ((4, width), (6, width), (6, num_values))
    )
    mask = arrays()[2] if masked else None
    ours = fused_attention(q, k, v, mask, scale=0.3)
    logits = 0.3 * q @ k.mT
    if mask is not None:
        logits = torch.where(mask[:, None, None], logits, -math.inf)
    theirs = logits.softmax(-1) @ v
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours.sin().sum(), (q, k, v)), torch.autograd.grad(theirs.sin().sum(), (q, k, v))
    )
    assert seen == [(max(widths),) * 3]
    monkeypatch.setattr(fused_attention_module, "_MANY_WEIGHTS", 2 * 2 * 4 * 6)
    torch.testing.assert_close(fused_attention(q, k, v, mask, scale=0.3), theirs)
    assert seen[1:] == [(width, width, num_values)]


def layers(*widths: int) -> list[nn.Linear]:
    built = [linear(before, after).double() for before, after in itertools.pairwise(widths)]
    for layer in built:
        nn.init.normal_(layer.bias)
    return built


def follow(x: Tensor, hidden: Tensor, output: nn.Linear, then: list[nn.Linear]) -> Tensor:
    if folding_pays(x.shape[1], output, then):
        return fold_layers(x, hidden, output, then)
    return apply_layers(x + output(hidden), then)


@pytest.mark.parametrize("num_queries", [1, 200])
@pytest.mark.parametrize("then_widths", [(), (3,), (6, 2), (9, 4, 1)])
def test_layers_that_follow_a_feed_forward_are_applied(
    num_queries: int, then_widths: tuple[int, ...]
) -> None:
    (output,), then = layers(16, 8), layers(8, *then_widths)
    x, hidden = torch.randn(2, num_queries, 8).double(), torch.randn(2, num_queries, 16).double()
    expected = x + output(hidden)
    for layer in then:
        expected = layer(expected)
    torch.testing.assert_close(apply_layers(x + output(hidden), then), expected)
    if not then:
        assert not folding_pays(num_queries, output, then)
        return
    ours = fold_layers(x, hidden, output, then)
    torch.testing.assert_close(ours, expected)
    parameters = [parameter for layer in (output, *then) for parameter in layer.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(ours.sin().sum(), parameters),
        torch.autograd.grad(expected.sin().sum(), parameters),
    )


@settings(max_examples=30)
@given(
    num_queries=st.integers(1, 300),
    widths=st.tuples(*[st.integers(1, 30)] * 2),
    then_widths=st.lists(st.integers(1, 30), max_size=2),
)
def test_layers_that_follow_never_take_more_operations_than_as_written(
    num_queries: int, widths: tuple[int, int], then_widths: list[int]
) -> None:
    hidden_width, width = widths
    (output,), then = layers(hidden_width, width), layers(width, *then_widths)
    as_written = 2 * num_queries * sum(layer.weight.numel() for layer in (output, *then))
    x, hidden = torch.zeros(1, num_queries, width), torch.zeros(1, num_queries, hidden_width)
    with torch.no_grad(), Operations() as counter:
        follow(x.double(), hidden.double(), output, then)
    # What is done to the biases alone grows with no array, and is not counted beside it.
    biases = 2 * (then_widths[-1] if then_widths else 0) * (width + sum(then_widths))
    assert counter.total <= as_written + biases


def test_narrow_layers_that_follow_many_queries_save_operations() -> None:
    (output,), then = layers(32, 32), layers(32, 2)
    x = torch.zeros(1, 500, 32).double()
    with torch.no_grad(), Operations() as counter:
        follow(x, x, output, then)
    assert counter.total < 0.2 * 2 * 500 * (32 * 32 + 32 * 2)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("use_query_residual", [False, True])
def test_cross_attention_masks_queries_and_applies_what_follows(
    use_query_residual: bool, training: bool
) -> None:
    module = CrossAttention(
        query_channels=5, input_channels=6, num_heads=1, use_query_residual=use_query_residual
    ).double()
    module.train(training)
    then = layers(5, 4, 2)
    queries, inputs, mask = arrays()
    query_mask = torch.tensor([[True, False, True, True], [False, True, True, False]])
    ours = module(queries, inputs, mask, query_mask_BN=query_mask, then=Layers(*then))
    attended = explicit(
        module.attention,
        nn.functional.layer_norm(queries, (5,)),
        nn.functional.layer_norm(inputs, (6,)),
        mask,
        query_mask,
    )
    x = queries + attended if use_query_residual else attended
    hidden = nn.functional.gelu(module.feed_forward.hidden(nn.functional.layer_norm(x, (5,))))
    expected = then[1](then[0](x + module.feed_forward.output(hidden)))
    torch.testing.assert_close(ours, expected)
    chunks = QueryChunks(
        num_queries=4,
        chunk_size=3,
        make=lambda start, stop: (queries[:, start:stop], query_mask[:, start:stop]),
    )
    torch.testing.assert_close(module(chunks, inputs, mask, then=Layers(*then)), expected)


def test_dropout_acts_before_what_follows() -> None:
    """With every channel of both branches dropped or doubled, the layer that follows sees sums of just these."""
    module = CrossAttention(
        query_channels=5, input_channels=6, num_heads=1, dropout=0.5, use_query_residual=False
    ).double()
    nn.init.zeros_(module.attention.output.weight)
    nn.init.zeros_(module.feed_forward.output.weight)
    nn.init.constant_(module.attention.output.bias, 1.0)
    nn.init.constant_(module.feed_forward.output.bias, 10.0)
    (identity,) = layers(5, 5)
    nn.init.eye_(identity.weight)
    nn.init.zeros_(identity.bias)
    queries, inputs, _ = arrays()
    channels = module(queries.repeat(1, 50, 1), inputs, then=Layers(identity))
    assert set(channels.round(decimals=6).unique().tolist()) == {0.0, 2.0, 20.0, 22.0}
    assert module.eval()(queries, inputs, then=Layers(identity)).unique().tolist() == [11.0]
