"""Attention maps of any inputs."""

from __future__ import annotations

import numpy as np
import torch

from perceiver_io.attention_maps import AttentionMap


def make_maps(
    grids: dict[str, tuple[int, ...]],
    *,
    num_maps: int = 1,
    num_heads: int = 2,
    num_latents: int = 3,
    num_real: dict[str, int] | None = None,
) -> list[AttentionMap]:
    """Random weights that sum to one over all inputs; of some, only the first along the first axis are real."""
    rng = np.random.default_rng(0)
    sizes = {name: int(np.prod(grid)) for name, grid in grids.items()}
    maps = []
    for _ in range(num_maps):
        weights = rng.dirichlet(np.full(sum(sizes.values()), 0.3), size=(1, num_heads, num_latents))
        sizes_so_far = np.cumsum([0, *sizes.values()])
        for name, count in (num_real or {}).items():
            index = list(grids).index(name)
            start, stop = sizes_so_far[index : index + 2]
            weights[..., start + count * (stop - start) // grids[name][0] : stop] = 0
        weights /= weights.sum(axis=-1, keepdims=True)
        parts = np.split(weights, np.cumsum(list(sizes.values()))[:-1], axis=-1)
        by_input = {
            name: torch.from_numpy(part.reshape(1, num_heads, num_latents, *grids[name])).float()
            for name, part in zip(grids, parts, strict=True)
        }
        maps.append(
            AttentionMap(
                weights=by_input,
                content=by_input,
                position=by_input,
                bias=torch.zeros(1, num_heads, num_latents),
            )
        )
    return maps
