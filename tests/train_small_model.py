"""Trains small models for a few steps, alone or in one of two processes.

It is one of the processes as `python -m tests.train_small_model FOLDER MODEL/KIND/INPUTS …`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from perceiver_io.attention import SelfAttention
from perceiver_io.causal.layers import CausalCrossAttend, CausalSelfAttend
from perceiver_io.cross_attention import CrossAttention
from tests.clients import cases
from tests.small_models import arguments, core, model

NUM_PROCESSES, NUM_STEPS = 2, 3


def batch(name: str, step: int, rank: int, inputs: str) -> dict[str, Any]:
    """What one process is given; "absent" leaves the second without sound, "fewer outputs" without some outputs."""
    torch.manual_seed(100 * step + rank)
    if name in cases.CASES:
        return cases.CASES[name].batch(2)
    given = arguments(name)
    if inputs != "all" and rank == 1:
        del given["audio"]
    if inputs == "fewer outputs" and rank == 1:
        given["outputs"] = ["image"]
    return given


def wrapped(name: str, kind: str) -> nn.Module:
    """The model as it is, by DDP, or by FSDP2: a block at a time, or a part at a time besides."""
    torch.manual_seed(0)
    made: nn.Module = cases.model(name, train=True) if name in cases.CASES else model(name).train()
    if kind == "ddp":
        return DistributedDataParallel(made)
    if kind == "alone":
        return made
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if kind.endswith("bfloat16") else None)
    for module in made.modules():
        if isinstance(module, (CrossAttention, SelfAttention, CausalCrossAttend, CausalSelfAttend)):
            fully_shard(module, mp_policy=policy)
    if kind == "fsdp by part":
        perceiver = core(made)
        parts = [
            *perceiver.adapters.values(),
            perceiver.packer,
            perceiver.encoder,
            *perceiver.decoders.values(),
        ]
        if perceiver.shared_attention is not None:
            parts.append(perceiver.shared_attention)
        for part in parts:
            if any(True for _ in part.parameters()):
                fully_shard(part, mp_policy=policy)
    fully_shard(made, mp_policy=policy)
    return made


def whole(x: Tensor) -> Tensor:
    return x.full_tensor() if hasattr(x, "full_tensor") else x  # type: ignore[no-any-return]


def save_whole(made: nn.Module, folder: Path) -> None:
    """Saves a sharded model as any other is saved: its parts are gathered on the first process, which writes them."""
    tensors = get_model_state_dict(made, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank() == 0:
        made.save_pretrained(folder, state_dict=tensors)  # type: ignore[operator]


def trained(
    name: str, kind: str, inputs: str, folder: Path | None = None
) -> tuple[list[float], dict[str, Tensor]]:
    """The losses of both processes' batches, and the parameters in the end. What is sharded is saved in the folder."""
    alone = kind == "alone"
    ranks = range(NUM_PROCESSES) if alone else [dist.get_rank()]
    made = wrapped(name, kind)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.05)
    losses: list[float] = []
    for step in range(NUM_STEPS):
        optimizer.zero_grad()
        loss = torch.stack([made(**batch(name, step, rank, inputs)).loss for rank in ranks]).mean()
        loss.backward()
        optimizer.step()
        loss = loss.detach()
        if not alone:
            dist.all_reduce(loss)
            loss /= NUM_PROCESSES
        losses.append(loss.item())
    if folder is not None and kind.startswith("fsdp"):
        save_whole(made, folder)
    return losses, {path.removeprefix("module."): whole(x.detach()) for path, x in made.named_parameters()}


def main(folder: str, *cases: str) -> None:
    dist.init_process_group("gloo")
    results = {case: trained(*case.split("/"), folder=Path(folder) / case) for case in cases}
    if dist.get_rank() == 0:
        torch.save(results, Path(folder) / "trained.pt")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # without taking the interpreter apart: threads of gloo may still run, and that would abort


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
