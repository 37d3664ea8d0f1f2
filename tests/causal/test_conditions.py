"""What stands before a sequence: no latent stands on it, whatever the lengths of the other sequences of a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from perceiver_io.adapters.label import LabelAdapter
from perceiver_io.adapters.text import TextAdapter
from perceiver_io.causal import LatentCache
from perceiver_io.tasks.autoregressive import PerceiverARForCausalLM
from perceiver_io.tasks.autoregressive.presets import causal_config

LENGTHS = (1, 3, 7, 10)


def model_of() -> PerceiverARForCausalLM:
    torch.manual_seed(0)
    adapter = TextAdapter.Config(
        vocab_size=11, max_length=20, num_channels=16, position="learned", counts_real=True
    )
    config = causal_config(
        adapter,
        variant="tiny",
        max_length=16,
        num_latents=6,
        vocab_size=11,
        conditions={"label": LabelAdapter.Config(num_classes=4)},
        encoder={"latent_channels": 16, "num_self_attends": 2},
    )
    model = PerceiverARForCausalLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4 if parameter.ndim > 1 else 0.2)
    return model


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    ids = torch.randint(11, (4, 10), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(10) >= 10 - torch.tensor(LENGTHS)[:, None]
    return ids, mask, {"label": torch.tensor([2, 0, 1, 3])}


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_a_batch_are_what_they_are_alone(side: str, batch: Any) -> None:
    model, (ids, mask, conditions) = model_of(), batch
    padded, real = (ids, mask) if side == "left" else (ids.flip(1), mask.flip(1))
    with torch.no_grad():
        together = model(padded, attention_mask=real, conditions=conditions).logits
        for row, length in enumerate(LENGTHS):
            alone = model(
                padded[row : row + 1][:, real[row]], conditions={"label": conditions["label"][row : row + 1]}
            ).logits
            assert alone.shape[1] == min(length, 6)
            torch.testing.assert_close(together[row, -alone.shape[1] :], alone[0])


def test_a_cache_holds_what_a_whole_pass_gives(batch: Any) -> None:
    model, (ids, mask, conditions) = model_of(), batch
    ids, mask, conditions = (
        ids[1:],
        mask[1:],
        {"label": conditions["label"][1:]},
    )  # the first has no token yet
    cache = LatentCache(
        model.perceiver.encoder.num_layers, model.latent_schedule(num_conditions=1, prompt_latents=4)
    )
    with torch.no_grad():
        for start, stop, num_latents in ((0, 8, 4), (8, 9, 5), (9, 10, 6)):
            step = model(
                ids[:, start:stop],
                attention_mask=mask[:, start:stop],
                conditions=conditions,
                past_key_values=cache,
            ).logits
            whole = model(
                ids[:, :stop], attention_mask=mask[:, :stop], conditions=conditions, num_latents=num_latents
            ).logits
            torch.testing.assert_close(step[:, -1], whole[:, -1])
