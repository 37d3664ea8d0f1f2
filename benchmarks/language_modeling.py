"""Texts byte by byte, beside n-grams and GPT-2: bits a byte of text that nobody learned from.

    python benchmarks/language_modeling.py                                           # the standard library's source
    python benchmarks/language_modeling.py --dataset book.txt -- --test-fraction 0.05

Ours is the command as it comes. GPT-2 is `transformers`' class with the same width, heads and number of attention
layers, trained from scratch on windows as long as ours: as many tokens predicted in a step, as many steps, the same
optimizer, schedule and learning rate, or that of --learning-rates that does best on the validation texts. N-grams are
counted on the same training texts and smoothed by Witten and Bell. All are judged by the same bytes, and both networks
by the same windows, in which each byte has at least half a window before it, but for those at a text's beginning.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from token_ngrams import NGrams
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, get_cosine_schedule_with_warmup

from perceiver_io.running import parse_recipe, read_recipe_file
from perceiver_io.tasks.autoregressive.collator import WindowCollator
from perceiver_io.tasks.autoregressive.model import IGNORED
from perceiver_io.tasks.autoregressive.windows import TokenWindows
from perceiver_io.tasks.causal_language_modeling.recipe import CausalLanguageModelingRecipe
from perceiver_io.tasks.causal_language_modeling.task import CausalLanguageModelingTask

TASK = CausalLanguageModelingTask()


def train(dataset: str, run: Path, seed: int, flags: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "perceiver_io.cli", "train", TASK.name, "--dataset", dataset]
    command += ["--output-dir", str(run), "--seed", str(seed), *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return metrics


def bits(model: GPT2LMHeadModel, windows: TokenWindows, num_latents: int) -> float:
    """Bits a token of GPT-2 on what windows predict."""
    collate = WindowCollator(pad_id=0, num_latents=num_latents, train=False)
    total, number = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(windows), 32):
            batch = collate([windows[index] for index in range(start, min(start + 32, len(windows)))])
            logits, labels = logits_of(model, batch), batch["labels"][:, 1:]
            total += cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
            ).item()
            number += int((labels != IGNORED).sum())
    return total / number / math.log(2)


def logits_of(model: GPT2LMHeadModel, batch: dict[str, Tensor]) -> Tensor:
    """Logits of all tokens but the first, (B, T - 1, V)."""
    mask = batch.get("attention_mask")
    positions = None if mask is None else (mask.long().cumsum(1) - 1).clamp(min=0)
    return model(batch["input_ids"], attention_mask=mask, position_ids=positions).logits[:, :-1]


def train_gpt2(
    recipe: CausalLanguageModelingRecipe, data: Any, *, steps: int, learning_rate: float
) -> tuple[Any, float]:
    """Trains GPT-2 on as many tokens; returns it and the seconds that took."""
    assert recipe.max_length is not None and recipe.num_latents is not None
    encoder = TASK.config(recipe, data).encoder
    # It predicts all of a window but the first token, so half as many windows are as many tokens.
    batch_size = round(recipe.batch_size * (recipe.num_latents - 1) / (recipe.max_length - 1))
    windows = TokenWindows(
        data.train.documents, max_length=recipe.max_length, num_latents=recipe.max_length, movable=True
    )
    collate = WindowCollator(pad_id=0, num_latents=recipe.max_length, train=True)
    torch.manual_seed(recipe.seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=262,
            n_positions=recipe.max_length,
            n_embd=encoder.latent_channels,
            n_layer=1 + encoder.num_self_attends,
            n_head=encoder.num_heads,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=learning_rate,
        weight_decay=recipe.weight_decay,
        betas=(recipe.beta1, recipe.beta2),
        fused=True,
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, round(recipe.warmup_fraction * steps), steps)
    start, order = time.perf_counter(), []
    for step in range(steps):
        if len(order) < batch_size:
            order = torch.randperm(len(windows)).tolist()
        batch = collate([windows[order.pop()] for _ in range(batch_size)])
        logits, labels = logits_of(model, batch), batch["labels"][:, 1:]
        loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 99:
            print(
                f"GPT-2, step {step + 1}: {loss.item() / math.log(2):.3f} bits", file=sys.stderr, flush=True
            )
    return model.eval(), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="stdlib")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--orders", type=int, nargs="+", default=[2, 3, 4, 5], help="of the n-grams")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[1e-3, 3e-3], help="of GPT-2")
    parser.add_argument("--without", nargs="*", default=[], choices=["perceiver", "gpt2", "ngrams"])
    parser.add_argument("flags", nargs="*", help="after --: flags of the command")
    args = parser.parse_args()
    given = ["--dataset", args.dataset, *args.flags]
    recipe = parse_recipe(CausalLanguageModelingRecipe, given)
    steps = recipe.max_steps
    if "perceiver" not in args.without:
        with tempfile.TemporaryDirectory() as scratch:
            for seed in args.seeds:
                run = Path(scratch) / str(seed)
                metrics = train(args.dataset, run, seed, args.flags)
                values = read_recipe_file(run / "recipe.yaml", task=TASK.name)
                recipe, steps = parse_recipe(CausalLanguageModelingRecipe, values=values), metrics["steps"]
                print(
                    f"Perceiver AR, seed {seed}: {metrics['test_bits']:.3f} bits a byte, {metrics['parameters']:,} "
                    f"parameters, {metrics['train_seconds']:.0f} s",
                    flush=True,
                )
    assert recipe.num_latents is not None and steps is not None
    data = TASK.data(recipe)
    if "gpt2" not in args.without:
        tried = []
        for learning_rate in args.learning_rates:
            model, seconds = train_gpt2(recipe, data, steps=steps, learning_rate=learning_rate)
            found = [bits(model, windows, recipe.num_latents) for windows in (data.validation, data.test)]
            tried.append((*found, learning_rate, seconds))
            print(
                f"GPT-2, learning rate {learning_rate}: validation {found[0]:.3f}, test {found[1]:.3f} bits a byte, "
                f"{model.num_parameters():,} parameters, {seconds:.0f} s",
                flush=True,
            )
        print(f"GPT-2: {min(tried)[1]:.3f} bits a byte, learning rate {min(tried)[2]}", flush=True)
    if "ngrams" not in args.without:
        grams = NGrams(data.train.documents, max(args.orders), vocab_size=262)
        for order in args.orders:
            value = grams.nats(data.test.documents, order) / math.log(2)
            print(f"{order}-gram: {value:.3f} bits a byte", flush=True)


if __name__ == "__main__":
    main()
