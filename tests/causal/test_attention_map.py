"""What the latents of a Perceiver AR look at."""

import pytest
import torch

from tests.causal.models import KINDS, LATENTS, conditions, small_model, tokens


@pytest.mark.parametrize("kind", KINDS)
def test_the_map_is_what_the_cross_attend_computes(kind: str) -> None:
    model = small_model(kind)
    ids, given = tokens(2, 14), conditions(kind, 2) or {}
    attention = model.perceiver.encoder.cross_attend.attention
    seen = {}
    attention.value.register_forward_hook(lambda _, inputs, values: seen.update(values=values))
    attention.output.register_forward_hook(lambda _, inputs, out: seen.update(attended=inputs[0]))
    model(ids, conditions=given or None)
    (found,) = model.perceiver.attention_maps({"tokens": ids, **given})
    names = [*sorted(given), "tokens"]
    weights = torch.cat([found.weights[name].flatten(3) for name in names], dim=3)
    values = seen["values"].unflatten(-1, (2, -1)).transpose(1, 2)
    expected = (weights @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(seen["attended"], expected)
    assert torch.equal(weights.sum(-1).round(decimals=9), torch.ones(2, 2, LATENTS).double())
    logits = torch.cat([found.content[name].flatten(3) for name in names], dim=3)
    masked = logits.masked_fill(weights == 0, -torch.inf)
    torch.testing.assert_close(masked.softmax(-1), weights)
    for latent in range(LATENTS):
        assert not found.weights["tokens"][:, :, latent, 14 - LATENTS + latent + 1 :].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_not_looked_at_and_stays_where_it_was(side: str) -> None:
    model = small_model("rotary")
    ids = tokens(1, 12)
    (alone,) = model.perceiver.attention_maps({"tokens": ids})
    padding = torch.zeros(1, 3, dtype=torch.int64)
    padded = torch.cat([padding, ids] if side == "left" else [ids, padding], dim=1)
    mask = torch.ones_like(padded, dtype=torch.bool)
    real = slice(3, None) if side == "left" else slice(12)
    mask[:] = False
    mask[:, real] = True
    (found,) = model.perceiver.attention_maps({"tokens": padded}, {"tokens": mask}, latents=[0, 5])
    torch.testing.assert_close(found.weights["tokens"][..., real], alone.weights["tokens"][:, :, [0, 5]])
    assert not found.weights["tokens"][:, :, :, ~mask[0]].any()


def test_latents_out_of_range() -> None:
    with pytest.raises(ValueError, match="latents 0 to 5"):
        small_model("rotary").perceiver.attention_maps({"tokens": tokens(1, 9)}, latents=[6])
