"""Channels that all queries share: the logits are those of queries that are written out."""

import pytest
import torch
from torch import Tensor, nn

from perceiver_io import DecoderParts, DenseDecoder, SharedAttentionConfig
from perceiver_io import cross_attention as cross_attention_module
from perceiver_io.query_attention import SharedAttention
from perceiver_io.shared_channels import fold_into_keys, own_channels

NUM_OWN, NUM_SHARED, NUM_KEYS = 5, 9, 4


def tensors(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, nn.LayerNorm]:
    norm = nn.LayerNorm(NUM_OWN + NUM_SHARED, dtype=dtype)
    nn.init.normal_(norm.weight, 1.0, 0.3)
    nn.init.normal_(norm.bias, 0.0, 0.3)
    queries = torch.randn(2, 6, NUM_OWN, dtype=dtype) + 0.5
    shared = torch.randn(NUM_SHARED, dtype=dtype) - 0.3
    keys = torch.randn(2, NUM_KEYS, NUM_OWN + NUM_SHARED + 1, dtype=dtype)
    return queries, shared, keys, norm


def written_out(queries: Tensor, shared: Tensor, keys: Tensor, norm: nn.LayerNorm) -> Tensor:
    normed = norm(torch.cat([queries, shared.expand(*queries.shape[:2], -1)], dim=-1))
    return normed @ keys[..., :-1].transpose(1, 2) + keys[:, None, :, -1]


def folded(queries: Tensor, shared: Tensor, keys: Tensor, norm: nn.LayerNorm) -> Tensor:
    return own_channels(queries, norm, shared) @ fold_into_keys(keys, norm, shared).transpose(1, 2)


def test_logits_are_those_of_queries_that_are_written_out() -> None:
    given = tensors(torch.float64)
    torch.testing.assert_close(folded(*given), written_out(*given), atol=1e-12, rtol=1e-12)
    assert own_channels(given[0], given[3], given[1]).shape == (2, 6, NUM_OWN + 3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.3)])
def test_other_types(dtype: torch.dtype, tolerance: float) -> None:
    given = tensors(dtype)
    found = folded(*given)
    assert found.dtype == dtype
    torch.testing.assert_close(found, written_out(*given), atol=tolerance, rtol=tolerance)


def test_gradients_are_the_same() -> None:
    queries, shared, keys, norm = tensors(torch.float64)
    leaves = [queries.requires_grad_(), shared.requires_grad_(), keys.requires_grad_(), *norm.parameters()]
    expected = torch.autograd.grad(written_out(queries, shared, keys, norm).sin().sum(), leaves)
    found = torch.autograd.grad(folded(queries, shared, keys, norm).sin().sum(), leaves)
    for gradient, same in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, same)


@pytest.mark.parametrize(("num_heads", "use_query_residual"), [(1, False), (1, True), (2, False)])
def test_many_queries_give_what_few_give_and_only_then_are_folded(
    num_heads: int, use_query_residual: bool
) -> None:
    config = SharedAttentionConfig(
        outputs=("narrow", "wide"),
        output_channels=4,
        qk_channels=8,
        num_heads=num_heads,
        use_query_residual=use_query_residual,
    )
    narrow = DenseDecoder(
        DenseDecoder.Config(output_channels=1, grid=(200,), num_bands=2),
        DecoderParts(latent_channels=8, attended_channels=4),
    ).eval()
    shared = SharedAttention(
        config, query_channels={"narrow": narrow.num_query_channels, "wide": 30}, latent_channels=8
    )
    queries, latents = torch.randn(2, 200, narrow.num_query_channels), torch.randn(2, 3, 8)
    norms: list[int] = []
    shared.cross_attend.attention.query.register_forward_hook(lambda *_: norms.append(1))
    many = shared.of("narrow")(queries, latents)
    assert norms == [1]
    shared.cross_attend.attention.query._forward_hooks.clear()

    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            cross_attention_module, "own_channels", lambda *given: seen.append(1) or own_channels(*given)
        )
        folded_many = shared.of("narrow")(queries, latents)
        assert seen == ([1] if num_heads == 1 and not use_query_residual else [])
        few = [shared.of("narrow")(queries[:, i : i + 1], latents) for i in range(200)]
        assert len(seen) <= 1
    torch.testing.assert_close(folded_many, many, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.cat(few, dim=1), many, atol=1e-5, rtol=1e-4)
