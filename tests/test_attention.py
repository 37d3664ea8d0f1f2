"""Attention against torch's own modules with the same weights."""

from typing import Any

import pytest
import torch
from torch import nn

from perceiver_io.attention import FeedForward, MultiHeadAttention, SelfAttention
from perceiver_io.cross_attention import CrossAttention
from perceiver_io.fused_attention import attention_map


def attention(**fields: Any) -> MultiHeadAttention:
    defaults = {
        "query_channels": 8,
        "input_channels": 6,
        "num_heads": 4,
        "qk_channels": 8,
        "v_channels": 8,
        "output_channels": 8,
    }
    module = MultiHeadAttention(**defaults | fields)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def keep_mask() -> torch.Tensor:
    return torch.tensor([[True, False, True, True, False], [True, True, True, True, False]])


@pytest.mark.parametrize("masked", [False, True])
def test_agrees_with_torch_multihead_attention(masked: bool) -> None:
    ours = attention()
    theirs = nn.MultiheadAttention(8, 4, kdim=6, vdim=6, batch_first=True)
    with torch.no_grad():
        theirs.q_proj_weight.copy_(ours.query.weight)
        theirs.k_proj_weight.copy_(ours.key.weight)
        theirs.v_proj_weight.copy_(ours.value.weight)
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.weight.copy_(ours.output.weight)
        theirs.out_proj.bias.copy_(ours.output.bias)
    queries, inputs = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    mask = keep_mask() if masked else None
    expected, weights = theirs(
        queries,
        inputs,
        inputs,
        key_padding_mask=None if mask is None else ~mask,
        average_attn_weights=False,
    )
    torch.testing.assert_close(ours(queries, inputs, mask), expected)
    maps = attention_map(ours.logits(queries, ours.key(inputs)), mask)
    torch.testing.assert_close(maps, weights)


@pytest.mark.parametrize(
    ("qk_channels", "v_channels", "output_channels"), [(4, 8, 8), (12, 4, 5), (4, 12, 3)]
)
def test_widths_apart_agree_with_attention_head_by_head(
    qk_channels: int, v_channels: int, output_channels: int
) -> None:
    module = attention(
        qk_channels=qk_channels, v_channels=v_channels, output_channels=output_channels, num_heads=2
    )
    queries, inputs = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    heads = []
    for q, k, v in zip(
        module.query(queries).chunk(2, dim=-1),
        module.key(inputs).chunk(2, dim=-1),
        module.value(inputs).chunk(2, dim=-1),
        strict=True,
    ):
        weights = torch.softmax(q @ k.transpose(1, 2) / (qk_channels / 2) ** 0.5, dim=-1)
        heads.append(weights @ v)
    torch.testing.assert_close(module(queries, inputs), module.output(torch.cat(heads, dim=-1)))


def test_masked_inputs_change_nothing() -> None:
    module, mask = attention(), keep_mask()
    queries, inputs = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    other = torch.where(mask.unsqueeze(-1), inputs, 100.0)
    torch.testing.assert_close(module(queries, inputs, mask), module(queries, other, mask))
    alone = module(queries[:1], inputs[:1, mask[0]])
    torch.testing.assert_close(module(queries, inputs, mask)[:1], alone)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"qk_channels": 6}, "qk_channels must be a positive multiple of the 4 heads, got 6"),
        ({"v_channels": 6}, "v_channels must be a positive multiple of the 4 heads, got 6"),
        ({"qk_channels": 0}, "qk_channels must be a positive multiple of the 4 heads, got 0"),
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
    ],
)
def test_widths_that_do_not_fit_the_heads_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(**fields)


def test_query_gain_scales_the_initial_logits() -> None:
    stds = []
    for gain in (1.0, 4.0):
        torch.manual_seed(0)
        module = MultiHeadAttention(
            query_channels=64,
            input_channels=64,
            num_heads=1,
            qk_channels=64,
            v_channels=64,
            output_channels=64,
            query_gain=gain,
        )
        stds.append(module.logits(torch.randn(4, 32, 64), module.key(torch.randn(4, 32, 64))).std().detach())
    assert stds[0].item() == pytest.approx(1.0, abs=0.1)
    torch.testing.assert_close(stds[1], 4 * stds[0])


def test_attention_dropout_acts_in_training_only() -> None:
    module = attention(dropout=0.5)
    queries, inputs = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    assert not torch.equal(module(queries, inputs), module(queries, inputs))
    module.eval()
    assert torch.equal(module(queries, inputs), module(queries, inputs))


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_feed_forward(activation: Any) -> None:
    module = FeedForward(4, widening_factor=3, activation=activation)
    assert module.hidden.weight.shape == (12, 4)
    x = torch.randn(2, 3, 4)
    hidden = module.hidden(x)
    if activation == "gelu":
        activated = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    else:
        activated = 0.5 * hidden * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
    torch.testing.assert_close(module(x), module.output(activated))


@pytest.mark.parametrize("use_query_residual", [True, False])
def test_cross_attention_is_pre_norm_with_an_optional_residual(use_query_residual: bool) -> None:
    module = CrossAttention(
        query_channels=8, input_channels=6, num_heads=2, use_query_residual=use_query_residual
    )
    assert module.attention.query.out_features == 6  # the inputs' width, as published
    queries, inputs = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    attended = module.attention(
        nn.functional.layer_norm(queries, (8,), eps=1e-5), nn.functional.layer_norm(inputs, (6,), eps=1e-5)
    )
    x = queries + attended if use_query_residual else attended
    expected = x + module.feed_forward(nn.functional.layer_norm(x, (8,), eps=1e-5))
    torch.testing.assert_close(module(queries, inputs), expected)


def test_self_attention_is_pre_norm() -> None:
    module = SelfAttention(num_channels=8, num_heads=2, qk_channels=4)
    assert module.attention.value.out_features == 4  # as the queries and keys
    latents = torch.randn(2, 3, 8)
    normed = nn.functional.layer_norm(latents, (8,), eps=1e-5)
    x = latents + module.attention(normed, normed)
    expected = x + module.feed_forward(nn.functional.layer_norm(x, (8,), eps=1e-5))
    torch.testing.assert_close(module(latents), expected)


def test_dropout_drops_residual_branches() -> None:
    module = CrossAttention(query_channels=8, input_channels=6, num_heads=2, dropout=0.5)
    queries, inputs = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    assert not torch.equal(module(queries, inputs), module(queries, inputs))
    module.eval()
    assert torch.equal(module(queries, inputs), module(queries, inputs))
