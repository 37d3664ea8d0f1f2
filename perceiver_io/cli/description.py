"""What `perceiver-io info` tells: of this installation, and of a saved model."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

import perceiver_io
from perceiver_io.progress_bars import no_progress_bars
from perceiver_io.registry import ADAPTERS, DECODERS, PROCESSORS, TASKS, Registry
from perceiver_io.running import RunFolder

__all__ = ["REGISTRIES", "installation", "listing_text", "saved_model"]

REGISTRIES: dict[str, Registry[Any]] = {
    "adapters": ADAPTERS,
    "decoders": DECODERS,
    "processors": PROCESSORS,
    "tasks": TASKS,
}
"""What is found by short names, by what several are called."""


def installation() -> dict[str, Any]:
    """Returns versions, devices, and what is registered or announced."""
    accelerators = [f"{torch.accelerator.current_accelerator()}"] * (
        torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    )
    return {
        "perceiver_io": perceiver_io.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "devices": ["cpu", *(f"{name}:{index}" for index, name in enumerate(accelerators))],
        **{kind: registry.names() for kind, registry in REGISTRIES.items()},
    }


def listing_text(kind: str, rows: Sequence[Mapping[str, str]]) -> str:
    """Returns a table of what is installed of one kind: the name, the class or what is wrong, the distribution.

    Args:
        kind: What they are called.
        rows: What `Registry.listing` returned.
    """
    cells = [
        (
            row["name"],
            f"{row['distribution']} {row['version']}" if "distribution" in row else "no distribution",
            row.get("class") or f"cannot be used: {row['error']}",
        )
        for row in rows
    ]
    widths = [max((len(cell[column]) for cell in cells), default=0) for column in (0, 1)]
    return "\n".join([kind, *(f"  {a:{widths[0]}}  {b:{widths[1]}}  {c}" for a, b, c in cells)])


def saved_model(folder: str) -> dict[str, Any]:
    """Returns what a saved model is made of, and the results of its run.

    Raises:
        ValueError: There is no such folder, or no model in it.
        OSError: The model cannot be read.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"There is no folder {folder}.")
    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"There is no model in {folder}: it has no config.json.")
    with no_progress_bars():
        model = perceiver_io.from_pretrained(folder)
    config = model.config
    content: dict[str, Any] = {
        "model": type(model).__name__,
        "parameters": model.num_parameters(),
        **{f"input {name}": part.to_dict() for name, part in config.inputs.items()},
        "encoder": config.encoder.to_dict(),
        **{f"output {name}": part.to_dict() for name, part in config.outputs.items()},
    }
    if len(config.inputs) > 1:
        content["packing"] = config.packing.to_dict()
    if config.shared_attention is not None:
        content["shared attention"] = config.shared_attention.to_dict()
    run = RunFolder(folder)
    if run.is_complete:
        scalars = {name: value for name, value in run.metrics().items() if isinstance(value, (int, float))}
        content["results"] = scalars
    return content
