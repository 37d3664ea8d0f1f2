"""Our resampler beside those of perceiver-pytorch, flamingo-pytorch and Idefics2 in `transformers`, at equal work.

    pip install --no-deps --target peers flamingo-pytorch==0.1.2 einops-exts==0.0.4
    PYTHONPATH=peers python benchmarks/resampler.py            # what the table in docs/use-a-part.md was made with
    PYTHONPATH=peers python benchmarks/resampler.py --rounds 3 --channels 256

Each pair has the same weights, and must give the same latents before anything is timed. perceiver-pytorch has no class
of that name: its block whose queries are among the keys, without self-attention, is a layer of one. Its biases are
zero here, and ours has none. Turns alternate; what is counted is the processor time of one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from perceiver_pytorch.perceiver_pytorch import PerceiverBlock
from torch import Tensor, nn
from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig
from transformers.models.idefics2.modeling_idefics2 import Idefics2PerceiverResampler

import perceiver_io as pio

Pair = tuple[nn.Module, nn.Module]  # theirs, ours
HEAD = 64


class StackOfBlocks(nn.Module):
    """perceiver-pytorch's blocks as a resampler."""

    def __init__(self, channels: int, num_latents: int, depth: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(num_latents, channels))
        self.blocks = nn.ModuleList(
            PerceiverBlock(
                dim=channels,
                cross_heads=channels // HEAD,
                cross_dim_head=HEAD,
                self_per_cross_attn=0,
                queries_contribute_kv=True,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, features: Tensor) -> Tensor:
        latents = self.latents.expand(len(features), -1, -1)
        for block in self.blocks:
            latents = block(latents, context=features)
        return self.norm(latents)


def with_perceiver_pytorch(channels: int, num_latents: int, depth: int) -> Pair:
    theirs = StackOfBlocks(channels, num_latents, depth)
    ours = pio.PerceiverResampler(
        channels, num_latents, depth, num_heads=channels // HEAD, feed_forward="geglu"
    )
    assert ours.latents is not None
    with torch.no_grad():
        theirs.latents.copy_(ours.latents.weight)
        for block, layer in zip(theirs.blocks, ours.layers, strict=True):
            attention, feed_forward = block.cross_attn.fn, block.cross_ff.fn.net
            attention.to_q.weight.copy_(layer.attention.query.weight)
            attention.to_kv.weight.copy_(
                torch.cat([layer.attention.key.weight, layer.attention.value.weight])
            )
            attention.to_out.weight.copy_(layer.attention.output.weight)
            gate_and_hidden = [layer.feed_forward.hidden.weight, layer.feed_forward.gate.weight]
            feed_forward[0].weight.copy_(torch.cat(gate_and_hidden))
            feed_forward[2].weight.copy_(layer.feed_forward.output.weight)
            for biased in (attention.to_out, feed_forward[0], feed_forward[2]):
                nn.init.zeros_(biased.bias)
    return theirs, ours


def with_flamingo_pytorch(channels: int, num_latents: int, depth: int) -> Pair:
    from flamingo_pytorch import PerceiverResampler

    theirs = PerceiverResampler(
        dim=channels, depth=depth, dim_head=HEAD, heads=channels // HEAD, num_latents=num_latents
    )
    return _OneMedium(theirs), _OneMedium(pio.PerceiverResampler.from_state_dict(theirs.state_dict()))


class _OneMedium(nn.Module):
    def __init__(self, resampler: nn.Module) -> None:
        super().__init__()
        self.resampler = resampler

    def forward(self, features: Tensor) -> Tensor:
        return self.resampler(features[:, None])[:, 0]


def with_idefics2(channels: int, num_latents: int, depth: int) -> Pair:
    config = Idefics2PerceiverConfig(
        hidden_size=channels,
        resampler_n_latents=num_latents,
        resampler_depth=depth,
        resampler_n_heads=channels // HEAD,
        resampler_head_dim=HEAD,
        num_key_value_heads=channels // HEAD // 4,
        attn_implementation="sdpa",
    )
    theirs = Idefics2PerceiverResampler(config)
    nn.init.normal_(theirs.latents)
    return _Masked(theirs), _Masked(
        pio.PerceiverResampler.from_state_dict(theirs.state_dict(), head_channels=HEAD)
    )


class _Masked(nn.Module):
    """Idefics2 wants a mask: the last eighth is padding."""

    def __init__(self, resampler: nn.Module) -> None:
        super().__init__()
        self.resampler = resampler

    def forward(self, features: Tensor) -> Tensor:
        mask = torch.ones(features.shape[:2], dtype=torch.bool)
        mask[:, -features.shape[1] // 8 :] = False
        return self.resampler(features, mask)


PEERS = {
    "perceiver-pytorch": with_perceiver_pytorch,
    "flamingo-pytorch": with_flamingo_pytorch,
    "transformers, Idefics2": with_idefics2,
}


def forward(module: nn.Module, features: Tensor) -> None:
    with torch.no_grad():
        module(features)


def training_step(module: nn.Module, features: Tensor) -> None:
    module.zero_grad()
    module(features).square().mean().backward()


def seconds(
    work: Callable[[nn.Module, Tensor], None], pair: Pair, features: Tensor, rounds: int
) -> list[list[float]]:
    """Processor time of each turn of theirs and ours; the first turn warms up."""
    found: list[list[float]] = [[], []]
    for turn in range(rounds + 1):
        for module, times in zip(pair, found, strict=True):
            start = time.process_time()
            work(module, features)
            if turn:
                times.append(time.process_time() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels", type=int, default=768)
    parser.add_argument("--num-latents", type=int, default=64)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument(
        "--num-features", type=int, default=577, help="a ViT of 384 pixels and patches of 16 has so many"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    features = torch.randn(options.batch_size, options.num_features, options.channels)
    print(f"{options}\n| beside | parameters, theirs | ours | work | theirs, ms | ours, ms | theirs / ours |")
    for name in options.peers:
        pair = PEERS[name](options.channels, options.num_latents, options.depth)
        with torch.no_grad():
            torch.testing.assert_close(pair[1](features), pair[0](features), rtol=1e-4, atol=1e-4)
        counts = [sum(map(torch.numel, module.parameters())) for module in pair]
        for what, work in (("forward", forward), ("forward and backward", training_step)):
            theirs, ours = seconds(work, pair, features, options.rounds)
            ratios = sorted(a / b for a, b in zip(theirs, ours, strict=True))
            row = [name, *(f"{count:,}" for count in counts), what]
            row += [f"{1000 * statistics.median(times):.0f}" for times in (theirs, ours)]
            row += [f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
