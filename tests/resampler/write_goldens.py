"""Writes tests/data/resamplers.json: what the published resamplers themselves compute with weights of `formula.py`.

Their packages ask for much that these files do not need, so they are put in a folder without it:

    pip install --no-deps --target peers flamingo-pytorch==0.1.2 open-flamingo==2.0.1 ip-adapter==0.1.0 \
        coqui-tts==0.28.0 einops-exts==0.0.4
    python -m tests.resampler.write_goldens peers
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.resampler.formula import numbers, weights

TARGET = Path(__file__).resolve().parent.parent / "data" / "resamplers.json"
SMALL = {"dim": 16, "depth": 2, "dim_head": 8, "heads": 2, "ff_mult": 2}
# By layout: the file in its package, the class, what it is built with, and the shape that it reads.
CASES: dict[str, tuple[str, str, str, dict[str, Any], tuple[int, ...]]] = {
    "flamingo-pytorch": (
        "flamingo-pytorch",
        "flamingo_pytorch/flamingo_pytorch.py",
        "PerceiverResampler",
        {"num_latents": 3, "num_media_embeds": 4},
        (2, 3, 5, 16),
    ),
    "open-flamingo": (
        "open-flamingo",
        "open_flamingo/src/helpers.py",
        "PerceiverResampler",
        {"num_latents": 3},
        (2, 1, 1, 5, 16),
    ),
    "open-flamingo, frames and media": (
        "open-flamingo",
        "open_flamingo/src/helpers.py",
        "PerceiverResampler",
        {"num_latents": 3, "max_num_media": 3, "max_num_frames": 4},
        (2, 2, 3, 5, 16),
    ),
    "ip-adapter": (
        "ip-adapter",
        "ip_adapter/resampler.py",
        "Resampler",
        {"num_queries": 3, "embedding_dim": 12, "output_dim": 10},
        (2, 5, 12),
    ),
    "ip-adapter, positions and pooled latents": (
        "ip-adapter",
        "ip_adapter/resampler.py",
        "Resampler",
        {
            "num_queries": 3,
            "embedding_dim": 12,
            "output_dim": 10,
            "max_seq_len": 6,
            "apply_pos_emb": True,
            "num_latents_mean_pooled": 2,
        },
        (2, 5, 12),
    ),
    "xtts": (
        "xtts",
        "TTS/tts/layers/xtts/perceiver_encoder.py",
        "PerceiverResampler",
        {"num_latents": 3, "dim_context": 12, "ff_mult": 3},
        (2, 5, 12),
    ),
}
# Files that one of these imports; for their packages, which import much else, empty ones stand in.
BESIDE = ("TTS/utils/generic_utils.py", "TTS/tts/layers/tortoise/transformer.py")


def module(path: Path) -> ModuleType:
    """A file of a package, without what its package imports."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def main() -> None:
    peers = Path(sys.argv[1])
    sys.path.append(str(peers))
    for file in BESIDE:
        parts = file.removesuffix(".py").split("/")
        for depth in range(1, len(parts)):
            package = ".".join(parts[:depth])
            sys.modules.setdefault(package, ModuleType(package))
        sys.modules[".".join(parts)] = module(peers / file)
    goldens = {}
    for name, (layout, file, kind, options, shape) in CASES.items():
        peer = getattr(module(peers / file), kind)(**SMALL | options).eval()
        shapes = {key: list(tensor.shape) for key, tensor in peer.state_dict().items()}
        peer.load_state_dict(weights(shapes))
        with torch.no_grad():
            output = peer(numbers(shape, 0))
        goldens[name] = {
            "layout": layout,
            "input": list(shape),
            "shapes": shapes,
            "output": list(output.shape),
            "values": [float(f"{value:.7g}") for value in output.flatten().tolist()],
        }
    lines = [f"{json.dumps(name)}: {json.dumps(golden)}" for name, golden in goldens.items()]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
